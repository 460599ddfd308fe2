import os

import pytest

from wherry.engine.container import confined, users
from wherry.engine.errors import BadParameter

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n# a comment\nbroken:x\n"
GROUP = "root:x:0:\nweb:x:34:\nlog:x:50:web,root\ndisk:x:6:\n"


def look_up(text, additional=()):
    account = users.look_up(text, additional, PASSWD, GROUP)
    return account.user.uid, account.user.gid, list(account.user.additional_gids), account.home


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, [0, 50], "/root")),
        ("web", (33, 34, [34, 50], "/srv")),
        ("33", (33, 34, [34, 50], "/srv")),
        ("web:disk", (33, 6, [6], "/srv")),
        ("web:77", (33, 77, [77], "/srv")),
        ("1000", (1000, 0, [0], "/")),
        ("1000:log", (1000, 50, [50], "/")),
    ],
)
def test_users_and_groups_are_resolved_as_runc_does(text, expected):
    assert look_up(text) == expected


def test_additional_groups_come_by_name_or_number():
    assert look_up("web", ["disk", "99"])[2] == [34, 50, 6, 99]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("web:nobody", "unable to find group nobody: no matching entries in group file"),
        ("-1", "uids and gids must be in range 0-2147483647"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_what_cannot_be_found_is_named(text, message):
    with pytest.raises(BadParameter) as caught:
        look_up(text)
    assert caught.value.message == message


@pytest.fixture
def rootfs(tmp_path):
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "outside").write_text("secret:x:0:0::/:\n")
    return root


@pytest.mark.parametrize("target", ["../../outside", "{outside}", "/proc/self/environ"])
def test_a_link_in_an_image_does_not_lead_out_of_it(rootfs, tmp_path, target):
    (rootfs / "etc/passwd").symlink_to(target.format(outside=tmp_path / "outside"))
    assert confined.read_file(rootfs, "/etc/passwd") is None


def test_a_link_inside_an_image_is_followed(rootfs):
    (rootfs / "real").write_text(PASSWD)
    (rootfs / "etc/passwd").symlink_to("/real")
    assert users.resolve(rootfs, "web").user.uid == 33


def test_a_pipe_in_the_place_of_a_file_does_not_stop_the_daemon(rootfs):
    os.mkfifo(rootfs / "etc/passwd")
    assert users.resolve(rootfs, "5").user.uid == 5


def test_directories_are_made_inside_the_image_only(rootfs, tmp_path):
    (rootfs / "link").symlink_to("/")
    confined.make_directories(rootfs, "/link/a/b", os.getuid(), os.getgid())
    assert (rootfs / "a/b").is_dir()
    (rootfs / "out").symlink_to("../..")
    confined.make_directories(rootfs, "/out/c", os.getuid(), os.getgid())
    assert (rootfs / "c").is_dir()
    assert not (tmp_path / "c").exists()


def test_a_file_on_the_way_is_told(rootfs):
    (rootfs / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        confined.make_directories(rootfs, "/file/x")
