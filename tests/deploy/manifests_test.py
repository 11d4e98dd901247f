"""The Kubernetes manifests, rendered, against schemas and the real server: ports, probes, flags, labels, the drain.

Of CustomResources, which have no schema here, it is checked what they name.
"""

import json
import re
import subprocess
import sys

import deployed
import kubernetes_validate
import yaml
from program import Program

sys.path.insert(0, str(deployed.ROOT / "tests" / "end_to_end"))
from serving import SERVING, Server, arguments, check, health_pb2  # noqa: E402

SCHEMAS = "1.32"
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "ClusterServingRuntime", "InferencePool"}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
DRAIN_MARGIN = 5  # seconds


def kubectl():
    """kubectl with a kustomize that knows components and replacements, 4 or newer (kubectl 1.21)."""
    path = deployed.tool("kubectl", "kubernetes-client")
    said = subprocess.run([path, "version", "--client", "--output=json"], capture_output=True, text=True).stdout
    version = json.loads(said).get("kustomizeVersion", "v2")
    if int(re.search(r"v(\d+)", version)[1]) < 4:
        print(f"skipped: kubectl has kustomize {version}; 4 is needed", flush=True)
        sys.exit(deployed.SKIPPED)
    return path


def render(folder):
    result = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True)
    check(result.returncode == 0 and not result.stderr, f"{folder.name} renders {result.stderr}")
    return list(yaml.safe_load_all(result.stdout))


def of_kind(objects, kind):
    return [one for one in objects if one["kind"] == kind]


def pod_specs(objects):
    """(labels, spec) of every pod that these objects make."""
    for one in of_kind(objects, "Deployment"):
        yield one["spec"]["template"]["metadata"]["labels"], one["spec"]["template"]["spec"]
    for one in of_kind(objects, "ClusterServingRuntime"):
        yield {}, {"containers": one["spec"]["containers"]}


def check_schemas(objects):
    for one in objects:
        if one["kind"] in CUSTOM:
            continue
        try:
            kubernetes_validate.validate(one, SCHEMAS, strict=True)
        except kubernetes_validate.ValidationError as error:
            check(False, f"{one['kind']} {one['metadata']['name']}: {error.message}")
    # A runtime's containers are those of a pod.
    for _, spec in pod_specs(of_kind(objects, "ClusterServingRuntime")):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, SCHEMAS, strict=True)
    check(objects, f"{len(objects)} objects are as the schemas of Kubernetes {SCHEMAS} want them")


def environment(spec, objects):
    """The variables of the server's container, also those that come from a ConfigMap."""
    settings = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    container = spec["containers"][0]
    found = {variable["name"]: variable.get("value") for variable in container.get("env", ())}
    for source in container.get("envFrom", ()):
        found.update(settings[source["configMapRef"]["name"]])
    return found


def check_pods(objects, program):
    for labels, spec in pod_specs(objects):
        (container,) = spec["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        check(
            set(ports.values()) <= program.ports == program.exposed,
            f"ports {ports} are those that the server has in the image, which exposes them",
        )
        has_http = "--http-port=-1" not in container.get("args", ())
        check((program.http_ports <= set(ports.values())) == has_http, "OpenAI's interface is open where it is on")
        probes = {name: container[name] for name in PROBES if name in container}
        check(
            probes.keys() >= (set(PROBES) if labels else {"readinessProbe"})
            and all(probe["grpc"] == {"port": program.port} for probe in probes.values()),
            f"{', '.join(probes)} ask the gRPC port for the health of the whole server",
        )
        release = container["image"].split(":")[1].removesuffix("-cuda")
        check(release == program.version, f"the image {container['image']} is that of the sources")
        flags = {argument.split("=")[0] for argument in container.get("args", ())}
        check(flags <= program.flags, f"flags exist: {sorted(flags)}")
        variables = environment(spec, objects)
        check(variables.keys() <= program.variables, f"settings exist: {sorted(variables)}")
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
        check(
            not variables.get("SWITCHYARD_MODEL") or variables["SWITCHYARD_MODEL"].startswith(tuple(mounts)),
            "a model of its own lies on a volume",
        )
        check_rights({**spec.get("securityContext", {}), **container["securityContext"]}, program)
        if labels:
            check_drain(spec, container, variables, program)


def check_rights(context, program):
    check(
        context["runAsNonRoot"]
        and context["runAsUser"] in program.user
        and context["readOnlyRootFilesystem"]
        and not context["allowPrivilegeEscalation"]
        and context["capabilities"] == {"drop": ["ALL"]},
        "the container has the image's user, no rights and a root that is read-only",
    )


def check_drain(spec, container, variables, program):
    timeout = int(variables.get("SWITCHYARD_SHUTDOWN_TIMEOUT", program.shutdown_timeout))
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = spec["terminationGracePeriodSeconds"]
    check(
        grace >= pause + timeout + DRAIN_MARGIN, f"{grace} s are enough for {pause} s of rest and {timeout} s of drain"
    )
    # Else a Service named switchyard would set SWITCHYARD_PORT in every pod of the namespace.
    check(spec["enableServiceLinks"] is False, "Kubernetes sets no variables that the server would read")


def check_names(objects):
    """Selectors find the pods, named ports exist, autoscalers find the Deployment."""
    for deployment in of_kind(objects, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        (service,) = of_kind(objects, "Service")
        (policy,) = of_kind(objects, "NetworkPolicy")
        selectors = [
            deployment["spec"]["selector"]["matchLabels"],
            service["spec"]["selector"],
            policy["spec"]["podSelector"]["matchLabels"],
        ]
        selectors += [
            one["spec"]["selector"]["matchLabels"]
            for one in of_kind(objects, "PodDisruptionBudget") + of_kind(objects, "InferencePool")
        ]
        check(
            all(selector and selector.items() <= labels.items() for selector in selectors),
            f"{len(selectors)} selectors find the pods",
        )
        names = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
        asked = {port["targetPort"] for port in service["spec"]["ports"]}
        allowed = [{port["port"] for port in rule["ports"]} for rule in policy["spec"]["ingress"]]
        check({"grpc", "openai"} in allowed, "who may call over gRPC may call over HTTP, and nobody else")
        asked = asked.union(*allowed)
        check(asked == names, f"Service and NetworkPolicy mean the ports {sorted(names)}")
        clients = [
            peer["podSelector"]["matchLabels"]
            for rule in policy["spec"]["ingress"]
            for peer in rule["from"]
            if "podSelector" in peer
        ]
        check(clients == [{"switchyard-client": "true"}], "a client needs its label and no other")

        scalers = of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject")
        targets = [one["spec"]["scaleTargetRef"]["name"] for one in scalers]
        check(
            all(target == deployment["metadata"]["name"] for target in targets)
            and ("replicas" in deployment["spec"]) == (not scalers),
            f"{len(targets)} autoscalers own the replicas",
        )
        for monitor in of_kind(objects, "ServiceMonitor"):
            wanted, own = monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"]
            endpoints = {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
            check(
                wanted.items() <= own.items() and endpoints <= {port["name"] for port in service["spec"]["ports"]},
                "the ServiceMonitor finds the Service and its port",
            )
            check(own[monitor["spec"]["jobLabel"]] == "switchyard", 'its job is "switchyard", as rules and KEDA expect')


def paths(objects):
    found = {endpoint["path"] for one in of_kind(objects, "ServiceMonitor") for endpoint in one["spec"]["endpoints"]}
    return found | {
        one["spec"]["annotations"]["prometheus.kserve.io/path"] for one in of_kind(objects, "ClusterServingRuntime")
    }


def main():
    args = arguments(__doc__)
    kubectl()
    program = Program(args.server_binary)
    asked, variables = set(), {}
    for folder in sorted((deployed.DEPLOY / "kubernetes" / "overlays").iterdir()):
        objects = render(folder)
        check_schemas(objects)
        check_pods(objects, program)
        check_names(objects)
        asked |= paths(objects)
        for labels, spec in pod_specs(objects):
            variables.update(environment(spec, objects))

    # What the manifests set, except for the model and the device, which this machine may not have.
    own = {name: value for name, value in variables.items() if name not in ("SWITCHYARD_MODEL", "SWITCHYARD_DEVICE")}
    with Server(args, variables=own) as server:
        status = server.health.Check(health_pb2.HealthCheckRequest(), timeout=10).status
        check(status == SERVING, f"with {own} the server is SERVING for the probes")
        for path in sorted(asked):
            check("switchyard_ready" in server.admin(path), f"GET {path} on the admin port is the page of metrics")


if __name__ == "__main__":
    main()
