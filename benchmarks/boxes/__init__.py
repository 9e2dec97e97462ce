"""Parts of `benchmarks.box_quality`: what was observed, and its tables that are an idea of their own."""
