"""The servers that `benchmarks.serving_throughput` measures, each the smallest that its own documents show."""
