"""The ``wherry`` command: parse, call, print. What it calls lives in ``wherry.launcher``.

Modules are imported by the command that needs them; ``wherry env`` should not pay for a server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wherry import __version__
from wherry.cli import ingress, nodes, registry
from wherry.cli.words import fail
from wherry.host import bytecode
from wherry.launcher.instance import DEFAULT_DATA_DIR, Instance, InstanceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    bytecode.keep()
    options = _parser().parse_args(arguments)
    if hasattr(options, "data_dir"):
        options.data_dir = options.data_dir.absolute()
    try:
        code: int = options.run(options)
    except InstanceError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read what we print has read enough; nor is there anybody to tell of it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wherry", description="Docker and Kubernetes in Python.")
    parser.add_argument("--version", action="version", version=f"wherry {__version__}")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--data-dir",
        type=Path,
        default=DEFAULT_DATA_DIR,
        help="where the instance lives; each directory is an instance of its own (%(default)s)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", parents=[place], help="start the engine and the cluster")
    up.add_argument("--sample", action="store_true", help="also run the sample, end to end")
    up.add_argument("--api-port", type=int, help="port of the API server (default 6443)")
    up.add_argument("--node-name", help="name of this node (default: the host's name)")
    up.add_argument(
        "--docker-tcp",
        metavar="HOST:PORT",
        help="also serve the Docker API on TCP, to clients with a certificate; 'off' ends it",
    )
    up.add_argument(
        "--store",
        metavar="STORE",
        help="where the cluster's state lies: sqlite (the default), etcd://HOST:PORT,… or "
        "etcds://HOST:PORT,…?ca=FILE&cert=FILE&key=FILE",
    )
    up.add_argument(
        "--apiserver-arg",
        action="append",
        metavar="NAME=VALUE",
        help="an option of kube-apiserver's (token-auth-file=…, audit-policy-file=…); may repeat, "
        "is kept with the instance; '' forgets them",
    )
    up.add_argument(
        "--controller-arg",
        action="append",
        metavar="NAME=VALUE",
        help="an option of kube-controller-manager's (controllers=*,-NAME, "
        "load-balancer-pool=CIDR); may repeat, is kept with the instance; '' forgets them",
    )
    up.add_argument(
        "--scheduler-config",
        metavar="FILE",
        help="a KubeSchedulerConfiguration: profiles, plugins (also of your own), their arguments; "
        "its place is kept with the instance; '' forgets it",
    )
    up.add_argument(
        "--ingress",
        metavar="HTTP:HTTPS",
        help="serve Ingresses by nginx on these ports of this machine, as 80:443; 'off' ends it",
    )
    up.add_argument(
        "--ingress-arg",
        action="append",
        metavar="NAME=VALUE",
        help="an option of ingress-nginx's (default-backend-service=NAMESPACE/NAME, "
        "default-ssl-certificate=…); may repeat, is kept with the instance; '' forgets them",
    )
    up.add_argument(
        "--kubelet-config",
        metavar="FILE",
        help="a KubeletConfiguration (evictionHard, maxPods, staticPodPath, …) for this node's "
        "kubelet; is kept with the instance; '' forgets it",
    )
    up.add_argument(
        "--advertise-address",
        metavar="ADDRESS",
        help="the address of this machine by which others reach it (that of its default route)",
    )
    up.add_argument(
        "--api-name",
        action="append",
        metavar="NAME",
        help="a further name or address under which others know the API server; may repeat, is "
        "kept with the instance; '' forgets them",
    )
    up.add_argument(
        "--pod-network",
        choices=("auto", "host-gw", "vxlan", "none"),
        help="how nodes reach each other's pods: by routes on a common link and VXLAN elsewhere "
        "(auto), always so, or by somebody else's doing (none); is kept with the instance",
    )
    up.add_argument(
        "--proxy-mode",
        choices=("nftables", "iptables", "userspace", ""),
        metavar="MODE",
        help="how this node leads clients to Services: nftables (the default), iptables or "
        "userspace; is kept with the instance; '' forgets it",
    )
    up.add_argument(
        "--proxy-config",
        metavar="FILE",
        help="a KubeProxyConfiguration (mode, healthzBindAddress, …) for this node's proxy; is "
        "kept with the instance; '' forgets it",
    )
    up.add_argument(
        "--ip-families",
        metavar="FAMILIES",
        help="IPv4 (the default), IPv6, or both, the primary one first: IPv4,IPv6; said at the "
        "first start",
    )
    up.add_argument(
        "--pod-network-cidr",
        metavar="CIDR",
        help="the range of the cluster's pods, or one of each family with a comma in between; said "
        "at the first start",
    )
    up.add_argument("--service-cidr", metavar="CIDR", help="that of its Services, likewise")
    nodes.add_plugins(up)
    up.set_defaults(run=_up)

    down = commands.add_parser("down", parents=[place], help="stop daemons, pods and containers")
    down.add_argument("--purge", action="store_true", help="and remove everything they made")
    down.add_argument(
        "--grace", type=float, default=10.0, help="seconds until containers are killed (10)"
    )
    down.set_defaults(run=_down)

    status = commands.add_parser("status", parents=[place], help="tell what runs")
    status.set_defaults(run=_status)

    backup = commands.add_parser(
        "backup", parents=[place], help="write the cluster's state to a file, while it runs"
    )
    backup.add_argument("file", type=Path)
    backup.set_defaults(run=_backup)

    restore = commands.add_parser(
        "restore", parents=[place], help="put a backup in the place of a stopped cluster's state"
    )
    restore.add_argument("file", type=Path)
    restore.set_defaults(run=_restore)

    env = commands.add_parser("env", parents=[place], help="print exports for docker and kubectl")
    env.add_argument("--tcp", action="store_true", help="reach docker by TCP and TLS")
    env.set_defaults(run=_env)

    server = commands.add_parser(
        "server", parents=[place], help="run API server, controllers and scheduler (foreground)"
    )
    server.set_defaults(run=_server)

    node = commands.add_parser(
        "node", parents=[place], help="run engine, kubelet and proxy (foreground)"
    )
    node.set_defaults(run=_node)

    images = commands.add_parser("images", help="make base images without a registry")
    actions = images.add_subparsers(required=True, metavar="ACTION")
    bootstrap = actions.add_parser(
        "bootstrap", parents=[place], help="make busybox, and Debian from its packages"
    )
    bootstrap.add_argument("names", nargs="*", metavar="NAME", help="busybox, debian (both)")
    bootstrap.add_argument("--again", action="store_true", help="also those that are there")
    bootstrap.set_defaults(run=_bootstrap)

    nodes.add(commands, place, _existing)
    registry.add(commands, place)
    ingress.add(commands)
    return parser


def _existing(options: argparse.Namespace) -> Instance:
    from wherry.launcher import instance

    found = instance.find(options.data_dir)
    if found is None:
        raise InstanceError(f"no instance lives in {options.data_dir}; `wherry up` starts one")
    return found


def _up(options: argparse.Namespace) -> int:
    from wherry.launcher import requirements, up
    from wherry.launcher.supervise import StartFailed

    faults = requirements.missing()
    if faults:
        return fail("\nwherry: ".join(faults))
    try:
        started = up.up(
            options.data_dir,
            api_port=options.api_port,
            node_name=options.node_name,
            docker_tcp=options.docker_tcp,
            store=options.store,
            apiserver_args=options.apiserver_arg,
            controller_args=options.controller_arg,
            ingress=options.ingress,
            ingress_args=options.ingress_arg,
            kubelet_config=options.kubelet_config,
            scheduler_config=options.scheduler_config,
            advertise_address=options.advertise_address,
            api_names=options.api_name,
            pod_network=options.pod_network,
            proxy_mode=options.proxy_mode,
            proxy_config=options.proxy_config,
            ip_families=options.ip_families,
            pod_cidr=options.pod_network_cidr,
            service_cidr=options.service_cidr,
            cni_conf_dir=options.cni_conf_dir,
            cni_bin_dir=options.cni_bin_dir,
        )
        if started.begun is None:
            print(f"wherry is already running (instance {started.instance.name})")
        else:
            print(f"wherry is up: node {started.instance.node_name} {started.begun}")
        if options.sample:
            from wherry.launcher import sample

            for line in sample.run(started.instance):
                print(line, flush=True)
    except (StartFailed, up.UpFailed) as error:
        return fail(str(error))
    _hints(started.instance)
    return 0


def _hints(instance: Instance) -> None:
    where = "" if instance.name == "default" else f" --data-dir {instance.data_dir}"
    program = sys.argv[0]
    if program.endswith("__main__.py"):
        program = f"{Path(sys.executable).name} -m wherry"
    print("Go on with:")
    print(f'  eval "$({program} env{where})"')
    print("  docker ps")
    print("  kubectl get pods")
    print(f"Stop it with: {program} down{where}")


def _down(options: argparse.Namespace) -> int:
    from wherry.launcher import down

    instance = _existing(options)
    stopped = asyncio.run(down.down(instance, grace=options.grace, purge=options.purge))
    what = " and ".join(stopped) if stopped else "nothing ran"
    print(f"wherry is down ({what})" + ("; everything is removed" if options.purge else ""))
    return 0


def _status(options: argparse.Namespace) -> int:
    from wherry.launcher import supervise

    instance = _existing(options)
    states = supervise.states(instance)
    print(f"instance    {instance.name} ({instance.data_dir})")
    for state in states:
        if state.pid is None:
            print(f"{state.name:<11} not running")
        else:
            print(
                f"{state.name:<11} running, pid {state.pid}, "
                f"{state.resident_bytes / 1e6:.0f} MB resident"
            )
    print(f"docker      unix://{instance.docker_socket}")
    if instance.docker_tcp:
        print(f"            tcp://{instance.docker_tcp} (TLS)")
    if instance.ingress:
        from wherry.launcher import ingress

        http, https = ingress.ports(instance)
        serves = "" if ingress.is_running(instance) else ": nginx does not run"
        print(f"ingress     ports {http} and {https}{serves}")
    role = "node of     " if instance.joined else "kubernetes  "
    print(f"{role}{instance.api_url} ({instance.kubeconfig})")
    if instance.joined:
        from wherry.launcher import standing

        print(f"            {standing.standing(instance)}")
    return 0 if all(state.pid is not None for state in states) else 3


def _env(options: argparse.Namespace) -> int:
    import shlex

    instance = _existing(options)
    if options.tcp:
        from wherry.launcher import docker_tcp

        print(f"export DOCKER_HOST={shlex.quote(docker_tcp.client_host(instance))}")
        print("export DOCKER_TLS_VERIFY=1")
        print(f"export DOCKER_CERT_PATH={shlex.quote(str(docker_tcp.keys(instance).client))}")
    else:
        print(f"export DOCKER_HOST={shlex.quote(f'unix://{instance.docker_socket}')}")
        if instance.docker_tcp:
            print("unset DOCKER_TLS_VERIFY DOCKER_CERT_PATH")
    print(f"export KUBECONFIG={shlex.quote(str(instance.kubeconfig))}")
    return 0


def _backup(options: argparse.Namespace) -> int:
    from wherry.launcher import backup

    made = backup.backup(_existing(options), options.file)
    print(f"{options.file}: {len(made.keys)} objects at revision {made.revision}")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from wherry.launcher import backup

    found = backup.restore(_existing(options), options.file)
    print(f"restored {len(found.keys)} objects, as they were at {found.made}")
    return 0


def _bootstrap(options: argparse.Namespace) -> int:
    from wherry.launcher import bootstrap

    try:
        for line in bootstrap.make(_existing(options), options.names, again=options.again):
            print(line, flush=True)
    except bootstrap.BootstrapFailed as error:
        return fail(str(error))
    return 0


def _server(options: argparse.Namespace) -> int:
    from wherry.launcher import daemon, server

    return daemon.run(_existing(options), "server", server.serve)


def _node(options: argparse.Namespace) -> int:
    from wherry.launcher import daemon, node

    return daemon.run(_existing(options), "node", node.serve)
