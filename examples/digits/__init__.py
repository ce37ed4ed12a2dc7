"""The digit classifiers of the demo: real data, three versions, two runtimes, one of them broken on purpose."""
