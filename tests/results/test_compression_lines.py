"""Test the sizes and latencies that plots of compressed runs show."""

from dataclasses import replace

from record_factory import make_record

from seqbench.results.compression import with_sizes


def child(parent, seed, **measured):
    record = make_record(seed=seed, init_run=parent.run_id, compress={"quantize": "fp16"})
    return replace(record, measured=record.measured | measured)


def test_a_latency_is_that_of_the_parent_times_the_measured_ratio():
    parent = make_record()
    # The machine was half as fast when the second one was measured.
    first = child(parent, 1, latency=0.8, latency_ratio=0.8, parent_latency=1.0, bytes=10)
    second = child(parent, 2, latency=1.8, latency_ratio=0.9, parent_latency=2.0, bytes=20)
    found = with_sizes([parent, first, second])
    assert [record.measured["latency"] for record in found] == [1.5, 0.8 * 1.5, 0.9 * 1.5]
    assert [record.measured.get("bytes") for record in found[1:]] == [10, 20]
