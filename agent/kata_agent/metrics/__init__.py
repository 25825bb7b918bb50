"""What GetMetrics tells: figures of the agent and of its guest, in Prometheus' text format.

Names, labels and units are kata-containers' (`src/agent/src/metrics.rs`). Each family is read by a function from
the text of one file of /proc, so that a captured text is as good as a running kernel.
"""
