"""Check with plain xarray, without modhook, that the plugin's study learned its task and separated its functions."""

import sys

import xarray as xr

cube = xr.open_datatree(sys.argv[1], engine="zarr")
accuracy = cube["scores"]["accuracy"]
assert accuracy.dims == ("seed", "stage", "split"), accuracy.dims
assert list(accuracy["stage"].values) == ["unmasked", "control", "min", "max"]
assert float(accuracy.sel(stage="unmasked", split="both").min()) > 0.9, accuracy.values
for own, other in (("min", "max"), ("max", "min")):
    kept = float(accuracy.sel(stage=own, split=own).mean())
    lost = float(accuracy.sel(stage=own, split=other).mean())
    print(f"under the {own} mask: {own} {kept:.2f}, {other} {lost:.2f}")
    assert kept > 0.8, accuracy.values
    assert kept > lost, accuracy.values
assert cube["overlap"]["iou_total"].notnull().all()
