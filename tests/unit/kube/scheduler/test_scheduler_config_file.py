from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from scheduler_parts import idle_informers

from wherry.kube.scheduler import config_file
from wherry.kube.scheduler.algorithm import Algorithm
from wherry.kube.scheduler.config import ConfigurationError
from wherry.kube.scheduler.snapshot import Snapshot

HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"

OWN = """
from wherry.kube.scheduler.framework import Filter, reject

class OnlyBlue(Filter):
    name = "OnlyBlue"

    def filter(self, cycle, pod, node):
        return None if node.labels.get("color") == "blue" else reject("node(s) were not blue")
"""


def load(directory: Path, text: str):
    path = directory / "scheduler.yaml"
    path.write_text(HEAD + textwrap.dedent(text))
    return config_file.load(path)


def algorithm(configuration, number: int = 0) -> Algorithm:
    return Algorithm(configuration.profiles[number], None, Snapshot(), idle_informers())


def test_without_anything_it_is_the_default(tmp_path):
    found = load(tmp_path, "")
    assert [profile.scheduler_name for profile in found.profiles] == ["default-scheduler"]


def test_profiles_weights_arguments_and_what_is_switched_off(tmp_path):
    found = load(
        tmp_path,
        """
        percentageOfNodesToScore: 40
        podInitialBackoffSeconds: 1
        podMaxBackoffSeconds: 20
        leaderElection: {leaderElect: false}
        profiles:
        - schedulerName: default-scheduler
        - schedulerName: packer
          percentageOfNodesToScore: 100
          plugins:
            multiPoint:
              enabled: [{name: ImageLocality, weight: 7}]
              disabled: [{name: PodTopologySpread}]
            score:
              disabled: [{name: "*"}]
              enabled: [{name: NodeResourcesFit, weight: 5}]
          pluginConfig:
          - name: NodeResourcesFit
            args: {scoringStrategy: {type: MostAllocated}}
        """,
    )
    assert (found.percentage_of_nodes, found.initial_backoff, found.max_backoff) == (40, 1, 20)
    packer = algorithm(found, 1)
    assert [(plugin.name, weight) for plugin, weight in packer.scores] == [("NodeResourcesFit", 5)]
    names = [plugin.name for plugin in packer.plugins]
    assert "PodTopologySpread" not in names
    assert "NodeAffinity" in [plugin.name for plugin in packer.filters]
    default = {plugin.name: weight for plugin, weight in algorithm(found).scores}
    assert default["TaintToleration"] == 3
    assert default["NodeResourcesFit"] == 1


def test_a_plugin_of_ones_own_lies_beside_the_configuration(tmp_path):
    (tmp_path / "blue.py").write_text(OWN)
    found = load(
        tmp_path,
        """
        profiles:
        - plugins:
            filter: {enabled: [{name: "blue.py:OnlyBlue"}]}
        """,
    )
    assert [plugin.name for plugin in algorithm(found).filters][-1] == "OnlyBlue"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("profile: []", 'unknown field "profile"'),
        ("profiles: {}", "profiles must be a list"),
        ("percentageOfNodesToScore: 101", r"not in valid range \[0-100\]"),
        ("podInitialBackoffSeconds: 0", "must be greater than 0"),
        ("profiles: [{}, {}]", 'Duplicate value: "default-scheduler"'),
        ("profiles: [{plugins: {sort: {}}}]", 'unknown field "plugins.sort"'),
        (
            "profiles: [{plugins: {filter: {enabled: [{name: Missing}]}}}]",
            'plugin "Missing" does not exist',
        ),
        (
            "profiles: [{plugins: {filter: {enabled: [{name: ImageLocality}]}}}]",
            'plugin "ImageLocality" does not extend filter plugin',
        ),
        (
            "profiles: [{plugins: {filter: {enabled: [{name: 'no.py:X'}]}}}]",
            "is no Python file",
        ),
        ("profiles: [1]", r"profiles\[0\] must be a mapping"),
        ("extenders: [{urlPrefix: ftp://x}]", "must be an http or https URL"),
        (
            "extenders: [{urlPrefix: http://x, prioritizeVerb: p, weight: 0}]",
            "must have a positive weight applied to it",
        ),
        (
            "extenders: [{urlPrefix: http://x, bindVerb: b}, {urlPrefix: http://y, bindVerb: b}]",
            "only one extender can implement bind",
        ),
        (
            "extenders: [{urlPrefix: http://x, managedResources: [{name: gpu}]}]",
            "invalid extended resource name",
        ),
        (":\n  - [", "scheduler.yaml: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        load(tmp_path, text)


def test_what_an_extender_looks_after_is_left_to_it(tmp_path):
    found = load(
        tmp_path,
        """
        extenders:
        - urlPrefix: https://localhost:1
          preemptVerb: preempt
          httpTimeout: 1500ms
          tlsConfig: {caFile: ca.crt, insecure: true}
          managedResources:
          - {name: example.com/gpu, ignoredByScheduler: true}
          - {name: example.com/nic}
        """,
    )
    (extender,) = found.extenders
    assert (extender.preempt_verb, extender.timeout, extender.insecure) == ("preempt", 1.5, True)
    assert extender.certificate_authority == str(tmp_path / "ca.crt")
    assert extender.managed_resources == ("example.com/gpu", "example.com/nic")
    profile = found.complete(found.profiles[0])
    arguments = {use.plugin: use.arguments for use in profile.plugins}
    assert arguments["NodeResourcesFit"] == {"ignoredResources": ["example.com/gpu"]}
    assert arguments["NodeAffinity"] == {}


def test_another_kind_is_refused(tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text("kind: Pod\n")
    with pytest.raises(ConfigurationError, match="expected apiVersion"):
        config_file.load(path)
