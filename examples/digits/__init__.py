"""The digit classifiers of the demo: real data, four versions, two runtimes, two versions broken on purpose."""
