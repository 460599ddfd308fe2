from wherry.kube.api.endpoint_slices import SERVICE_NAME, is_ready, service_key, still_serves


def test_a_slice_is_of_the_service_that_its_label_names() -> None:
    named = {"metadata": {"namespace": "shop", "labels": {SERVICE_NAME: "web"}}}
    assert service_key(named) == "shop/web"
    assert service_key({"metadata": {"namespace": "shop"}}) == "shop/"


def test_an_endpoint_of_which_nothing_is_said_is_ready() -> None:
    assert is_ready({})
    assert is_ready({"conditions": {"ready": None}})
    assert not is_ready({"conditions": {"ready": False}})


def test_an_endpoint_that_ends_and_still_answers_is_a_last_choice() -> None:
    assert still_serves({"conditions": {"ready": False, "serving": True, "terminating": True}})
    assert not still_serves({"conditions": {"ready": False, "serving": True}})
    assert still_serves({"conditions": {"ready": False, "terminating": True}})
    assert not still_serves({"conditions": {"serving": False, "terminating": True}})
    assert not still_serves({})
