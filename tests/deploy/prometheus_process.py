"""A real Prometheus with the configuration and the rules of deploy/, in a hurry: it scrapes and evaluates every second,
and an alert fires once it has been pending for HURRY, however long its own `for` is. Everything else is as deployed.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import deployed
import yaml

sys.path.insert(0, str(deployed.ROOT / "tests" / "end_to_end"))
from serving import check, free_port  # noqa: E402

HURRY = "5s"


class Prometheus:
    """Scrapes `target`, an address. `folder` is for its files."""

    def __init__(self, folder, target):
        config = yaml.safe_load((deployed.DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        rule_files = [file for pattern in config["rule_files"] for file in self.hurried(folder, pattern)]
        config["rule_files"] = rule_files
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{free_port()}"
        self.log = folder / "prometheus.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [
                    deployed.tool("prometheus", "prometheus"),
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={self.address}",
                ],
                stdout=log,
                stderr=log,
            )

    @staticmethod
    def hurried(folder, pattern):
        """Copies of the rule files with a short `for`."""
        for file in sorted((deployed.DEPLOY / "prometheus").glob(pattern)):
            rules = yaml.safe_load(file.read_text())
            for group in rules["groups"]:
                for rule in group["rules"]:
                    if "for" in rule:
                        rule["for"] = HURRY
            copy = folder / file.name
            copy.write_text(yaml.safe_dump(rules))
            yield str(copy)

    def api(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """[(labels, value)] of now, in Prometheus' order; [] also while it starts."""
        try:
            return [(one["metric"], float(one["value"][1])) for one in self.api("query", query=expression)["result"]]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it listens, but is not ready
                return []
            check(False, f"Prometheus takes {expression}: {error.read().decode()}")
        except OSError:
            if self.process.poll() is not None:
                check(False, f"Prometheus runs\n{self.log.read_text()}")
            return []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
