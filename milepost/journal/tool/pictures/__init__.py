"""Pictures of a workflow: its graph and its time, as SVG that looks right in light and in dark."""
