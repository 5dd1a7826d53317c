"""Write a RayJob for every stage, and one for the whole pipeline, into the folder jobs beside this program.

python cluster/kuberay/write_jobs.py
"""

from pathlib import Path

from sracl_dist.stages import STAGES

FOLDER = Path(__file__).parent / "jobs"
TEMPLATE = """\
# {purpose}: kubectl create -f cluster/kuberay/jobs/{name}.yaml
# Written by cluster/kuberay/write_jobs.py.
apiVersion: ray.io/v1
kind: RayJob
metadata:
  generateName: sracl-{name}-  # a job runs once: every `kubectl create` makes another
spec:
  clusterSelector:
    ray.io/cluster: sracl
  submissionMode: K8sJobMode  # a pod submits the job and shows its log
  entrypoint: python /opt/sracl/jobs/{name}.py --config /etc/sracl/config.yaml
"""


def render() -> dict[str, str]:
    """Text of each file by its name."""
    purposes = {stage.name: stage.purpose for stage in STAGES.values()}
    purposes["pipeline"] = "all stages in order, each skipped when it is done"
    return {
        f"{name}.yaml": TEMPLATE.format(name=name, purpose=purpose[0].upper() + purpose[1:])
        for name, purpose in purposes.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in render().items():
        (FOLDER / file).write_text(text)
