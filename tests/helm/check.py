"""The Helm chart and the plain Kubernetes manifests.

Renders the chart with several values, by Helm's engine and once by the program helm. Each object fits the schema of its
kind (Kubernetes 1.37; those of the Prometheus operator have none here). The chart's default output is what
packaging/kubernetes has, so that the two cannot differ.
"""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import helm_python as helm
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "packaging/helm/ringverb"
KUBERNETES = "1.37"
# What the plain manifests have as examples, and the chart demands.
GIVEN = {
    "app": {"id": "my-app-id", "key": "my-app-key", "secret": "change-this"},
    "adminToken": "change-this-too-16",
}
# Labels that a chart adds.
OF_HELM = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}


def rendered(values=None, name="ringverb"):
    """Objects by kind and name."""
    with helm.Chart.load(str(CHART)) as chart:
        files = chart.render({**GIVEN, **(values or {})}, name=name, namespace="default")
    documents = [
        document
        for path, text in files.items()
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]
    return by_name(documents)


def by_name(documents):
    documents = list(documents)
    objects = {(it["kind"], it["metadata"]["name"]): it for it in documents}
    assert len(objects) == len(documents), "two objects have one name"
    return objects


def plain(name):
    return by_name(yaml.safe_load_all((ROOT / "packaging/kubernetes" / name).read_text()))


def without_labels_of_helm(value):
    if isinstance(value, dict):
        kept = {key: without_labels_of_helm(it) for key, it in value.items() if key not in OF_HELM}
        annotations = kept.get("annotations")
        if annotations and all(key.startswith("checksum/") for key in annotations):
            del kept["annotations"]
        return kept
    if isinstance(value, list):
        return [without_labels_of_helm(it) for it in value]
    return value


def options():
    """Names of environment variables in the table of options."""
    text = (ROOT / "docs/OPTIONS.md").read_text()
    return set(re.findall(r"`((?:REVERB|REDIS|RINGVERB)_[A-Z_]+)`", text))


class Chart(unittest.TestCase):
    maxDiff = None

    def fits(self, objects):
        self.assertGreater(len(objects), 3)
        for (kind, _), it in objects.items():
            if kind != "ServiceMonitor":
                kubernetes_validate.validate(it, KUBERNETES, strict=True)

    def refused(self, text, values):
        with self.assertRaises(helm.HelmError) as caught:
            rendered(values)
        self.assertIn(text, str(caught.exception))

    def test_the_default_output_is_that_of_the_plain_manifests(self):
        self.assertEqual(without_labels_of_helm(rendered()), plain("ringverb.yaml"))
        monitored = rendered({"serviceMonitor": {"enabled": True}})
        both = plain("ringverb.yaml") | plain("monitoring.yaml")
        self.assertEqual(without_labels_of_helm(monitored), both)

    def test_the_command_of_the_documents_renders_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            values = pathlib.Path(folder) / "app.yaml"
            # As packaging/README.md says it.
            values.write_text(yaml.safe_dump({**GIVEN, "redis": {"host": "redis"}}))
            arguments = ["ringverb", "packaging/helm/ringverb", "--values", str(values)]

            def of_helm(*command):
                command = [os.environ["HELM"], *command]
                return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

            template = of_helm("template", *arguments)
            self.assertEqual(template.returncode, 0, template.stderr)
            self.assertEqual(by_name(filter(None, yaml.safe_load_all(template.stdout))), rendered())
            installed = of_helm("install", *arguments, "--dry-run=client")
            self.assertIn("REVERB_HOST=ringverb.default.svc", installed.stdout, installed.stderr)
            lint = of_helm("lint", *arguments[1:])
            self.assertEqual(lint.returncode, 0, lint.stdout)
            refused = of_helm("template", *arguments, "--set", "replicas=0")
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("'/replicas': minimum", refused.stderr)

    def test_all_objects_fit_their_schemas(self):
        self.fits(plain("ringverb.yaml"))
        self.fits(rendered())
        everything = {
            "image": {"repository": "example.com/ringverb", "tag": "1", "pullSecrets": [{"name": "a"}]},
            "redis": {"username": "user", "password": "secret"},
            "options": {"RINGVERB_TRUSTED_PROXIES": "10.0.0.0/8", "RINGVERB_KEEPALIVE_TIMEOUT": 75},
            "autoscaling": {"enabled": False},
            "replicas": 3,
            "shutdown": {"preStop": 5, "delay": 20, "grace": 30},
            "service": {"type": "LoadBalancer", "port": 80, "annotations": {"a": "b"}},
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "seccompProfile": {"type": "Localhost", "localhostProfile": "seccomp-io_uring.json"},
            "podAnnotations": {"a": "b"},
            "nodeSelector": {"a": "b"},
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
            ],
        }
        objects = rendered(everything, name="app")
        self.fits(objects)
        deployment = objects["Deployment", "app-ringverb"]["spec"]
        pod = deployment["template"]["spec"]
        self.assertEqual(deployment["replicas"], 3)
        self.assertEqual(pod["containers"][0]["image"], "example.com/ringverb:1")
        self.assertEqual(pod["securityContext"]["seccompProfile"]["type"], "Localhost")
        self.assertNotIn(("HorizontalPodAutoscaler", "app-ringverb"), objects)

    def test_a_pod_is_killed_after_its_drain_times(self):
        for shutdown in [{}, {"preStop": 5, "delay": 20, "grace": 30}]:
            objects = rendered({"shutdown": shutdown})
            pod = objects["Deployment", "ringverb"]["spec"]["template"]["spec"]
            config = objects["ConfigMap", "ringverb"]["data"]
            lifecycle = pod["containers"][0].get("lifecycle", {})
            before = lifecycle.get("preStop", {}).get("sleep", {}).get("seconds", 0)
            self.assertEqual(before, shutdown.get("preStop", 0))
            needed = before + int(config["RINGVERB_SHUTDOWN_DELAY"]) + int(config["RINGVERB_SHUTDOWN_GRACE"])
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], needed + 5)
            # The Service notices a pod that ends before the pod closes its connections.
            probe = pod["containers"][0]["readinessProbe"]
            self.assertLess(probe["periodSeconds"] * probe["failureThreshold"], int(config["RINGVERB_SHUTDOWN_DELAY"]))

    def test_a_changed_option_replaces_the_pods(self):
        def annotations(values):
            return rendered(values)["Deployment", "ringverb"]["spec"]["template"]["metadata"]["annotations"]

        self.assertEqual(annotations({}), annotations({}))
        changed = annotations({"options": {"RINGVERB_WORKERS": "2"}})
        self.assertNotEqual(changed["checksum/options"], annotations({})["checksum/options"])

    def test_names_are_options_of_the_server(self):
        objects = rendered({"redis": {"username": "user"}})
        names = objects["ConfigMap", "ringverb"]["data"] | objects["Secret", "ringverb"]["stringData"]
        self.assertEqual(set(names) - options(), set())

    def test_a_secret_of_the_cluster_is_used(self):
        values = {"existingSecret": "mine", "app": {"id": "", "key": "", "secret": ""}, "adminToken": ""}
        objects = rendered(values | {"serviceMonitor": {"enabled": True}})
        self.assertNotIn("Secret", {kind for kind, _ in objects})
        container = objects["Deployment", "ringverb"]["spec"]["template"]["spec"]["containers"][0]
        self.assertIn({"secretRef": {"name": "mine"}}, container["envFrom"])
        endpoint = objects["ServiceMonitor", "ringverb"]["spec"]["endpoints"][0]
        self.assertEqual(endpoint["authorization"]["credentials"]["name"], "mine")

    def test_wrong_values_are_refused(self):
        self.refused("app.id is empty", {"app": {"id": "", "key": "k", "secret": "s"}})
        self.refused("adminToken is empty", {"adminToken": ""})
        self.refused("several pods without Redis", {"redis": {"enabled": False}})
        with helm.Chart.load(str(CHART)) as chart:
            for wrong in [{"adminToken": "short"}, {"replicas": 0}, {"repliccas": 2}, {"shutdown": {"grace": 0}}]:
                with self.assertRaises(helm.HelmError):
                    chart.validate_schema({**GIVEN, **wrong})
            chart.validate_schema(GIVEN)

    def test_one_pod_needs_no_redis(self):
        objects = rendered({"redis": {"enabled": False}, "autoscaling": {"enabled": False}, "replicas": 1})
        config = objects["ConfigMap", "ringverb"]["data"]
        self.assertEqual(config["REVERB_SCALING_ENABLED"], "false")
        self.assertNotIn("REDIS_HOST", config)

    def test_lint_and_versions(self):
        findings = helm.lint(str(CHART), values=GIVEN)
        self.assertEqual(findings["errors"], [])
        # 1 is information: the chart has no icon.
        self.assertLessEqual({it["severity"] for it in findings["messages"]}, {1})
        version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual((chart["version"], chart["appVersion"]), (version, version))


if __name__ == "__main__":
    unittest.main()
