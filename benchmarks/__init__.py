"""Programs that measure; each prints a short table and saves its numbers in `results/`. See docs/performance.md."""
