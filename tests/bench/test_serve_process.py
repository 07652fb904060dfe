"""What a server's metrics say."""

from __future__ import annotations

import math

from bench.serve_process import read_gauges, total

TEXT = """# HELP camrt_rejected_total Requests that were not taken.
# TYPE camrt_rejected_total counter
camrt_rejected_total{reason="full"} 12.0
camrt_rejected_total{reason="deadline"} 3.0
camrt_rejected_total_more{reason="full"} 5.0
camrt_request_duration_seconds_bucket{le="+Inf",method="gradcam",model="a b"} 7.0
camrt_queue_work 1.5e+03
camrt_odd NaN
"""


def test_samples_are_read_by_name_and_labels() -> None:
    gauges = read_gauges(TEXT)
    assert gauges['camrt_rejected_total{reason="full"}'] == 12
    assert gauges['camrt_request_duration_seconds_bucket{le="+Inf",method="gradcam",model="a b"}'] == 7
    assert gauges["camrt_queue_work"] == 1500
    assert math.isnan(gauges["camrt_odd"])
    assert len(gauges) == 6


def test_a_metric_is_added_up_over_its_labels_alone() -> None:
    gauges = read_gauges(TEXT)
    assert total(gauges, "camrt_rejected_total") == 15
    assert total(gauges, "camrt_queue_work") == 1500
    assert total(gauges, "absent") == 0
