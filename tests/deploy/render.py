"""Render the chart as `helm template` does, by Helm's own engine.

Prints what lint says and the manifests, as JSON; fails if one is not of Kubernetes' schema. Runs
in `.venv-deploy`. Arguments: folder of the chart, values as JSON.
"""

import json
import sys

import helm_python as helm
import kubernetes_validate
import yaml

chart_dir, values = sys.argv[1], json.loads(sys.argv[2])
with helm.Chart.load(chart_dir) as chart:
    chart.validate_schema(values)
    rendered = chart.render(values, name="demo", namespace="prod")
manifests = [
    manifest
    for name, text in rendered.items()
    if name.endswith(".yaml")
    for manifest in yaml.safe_load_all(text)
    if manifest
]
for manifest in manifests:
    # Kinds that operators bring have no schema there.
    if manifest["kind"] not in {"ScaledObject", "PodMonitor"}:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
lint = helm.lint(chart_dir)
print(json.dumps({"lint": lint, "manifests": manifests}, default=str))
