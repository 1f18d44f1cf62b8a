"""Checks what a schema cannot: rights of the containers, probes, selectors. Prints the relay's configuration."""
import sys

import yaml

documents = list(yaml.safe_load_all(open(sys.argv[1])))
by_kind = {document["kind"]: document for document in documents}
assert set(by_kind) == {
    "ConfigMap", "ServiceAccount", "Service", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy"}, set(by_kind)
labels = by_kind["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
assert by_kind["Service"]["spec"]["selector"] == labels
assert by_kind["StatefulSet"]["spec"]["serviceName"] == by_kind["Service"]["metadata"]["name"]
for kind, selector in [("StatefulSet", "selector"), ("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")]:
    assert by_kind[kind]["spec"][selector]["matchLabels"] == labels, kind
pod = by_kind["StatefulSet"]["spec"]["template"]["spec"]
assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
assert pod["automountServiceAccountToken"] is False
for container in pod["initContainers"] + pod["containers"]:
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False, container["name"]
    assert context["capabilities"] == {"drop": ["ALL"]}, container["name"]
    assert "memory" in container["resources"]["limits"], container["name"]
[relay] = pod["containers"]
[port] = relay["ports"]
for probe, path in [("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")]:
    assert relay[probe]["httpGet"] == {"path": path, "port": port["name"]}, probe
sys.stdout.write(by_kind["ConfigMap"]["data"]["relay.toml"])
