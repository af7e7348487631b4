"""synthetic-digits is neither trivial nor too hard: a linear classifier reaches at most 93 %, a small network over 97 %."""

import pytest

JOB = """
name: synthetic
data: {source: synthetic-digits}
model: [%s]
train: {epochs: %d, batch: 100}
optimizer: {adam: {rate: 0.002, schedule: cosine}}
evaluate: {every: 100}
"""


@pytest.mark.parametrize("model, epochs, least, most", [
    ("linear: {units: 10}", 10, 0.80, 0.93),  # 40 epochs are no better
    ("linear: {units: 256}, relu, linear: {units: 10}", 2, 0.97, 1),
])
def test_accuracy_on_synthetic_digits(coppice, tmp_path, model, epochs, least, most):
    (tmp_path / "job.yaml").write_text(JOB % (model, epochs))
    result = coppice("run", "job.yaml", "--workers", 2, "--json", "--quiet")
    assert least < 1 - result["test_error"] <= most
