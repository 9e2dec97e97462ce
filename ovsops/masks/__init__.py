"""Class maps, regions, RLE, polygons, boxes and refinement."""
