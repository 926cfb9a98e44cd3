"""schemathesis against our own OpenAPI document: no 5xx, and no answer that the document does not tell of.

python benchmarks/fuzz.py --examples 300
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Report, Service

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)
KEY = "fuzzing-0123456789abcdef"
ADMIN = "root-0123456789abcdef"
MODELS = (
    dict(harness.MODEL) | {"rounds": 2},
    {"id": "bb72-bposd", "code": "bb72", "decoder": "bposd-osd0", "rounds": 2, "own_process": False},
)

EXPECTED = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", 504]\n'
"""504 is the answer to a client that allows too little time: `timeout_ms=1`."""
RUNS = {
    "any model id, with an admin's key": (EXPECTED, ADMIN),
    "a model that there is": (EXPECTED + '[parameters]\n"path.model_id" = "bb72"\n"path.model_version" = "1"\n', KEY),
}
"""What schemathesis is configured with, and the API key."""


def fuzz(running: Service, *, configuration: str, key: str, examples: int, seed: int) -> tuple[int, str]:
    """Runs schemathesis; its exit status and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder) / "schemathesis.toml").write_text(configuration)
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            *("--config-file", str(file), "run", f"{running.url}/openapi.json", "--url", running.url),
            *("--header", f"X-API-Key: {key}", "--checks", ",".join(CHECKS), "--max-examples", str(examples)),
            *("--seed", str(seed), "--continue-on-failure", "--no-color", "--request-timeout", "60"),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
    return done.returncode, done.stdout


def main() -> int:
    options = harness.arguments(__doc__, examples=(100, "of each operation, in each phase"))
    found = Report("fuzz", "schemathesis on our own OpenAPI document")
    keys = f"fuzz:{KEY},root:admin:{ADMIN}"
    for name, (configuration, key) in RUNS.items():
        with harness.serve(core=None, models=MODELS, max_rounds=4, api_keys=keys) as running:
            status, said = fuzz(
                running, configuration=configuration, key=key, examples=options.examples, seed=options.seed
            )
            found.goal(f"{name}: no 5xx, no undocumented answer", f"exit status {status}", met=status == 0)
            found.goal_of_tracebacks(running, prefix=f"{name}: ")
        print(said)
        cases = re.search(r"Test cases:\s+(.*)", said)
        found.rows.append({"requests for": name, "test cases": cases[1] if cases else "none"})
    found.notes.append(f"Checks of schemathesis: {', '.join(CHECKS)}.")
    return found.write(options.out)


if __name__ == "__main__":
    harness.run_script(main)
