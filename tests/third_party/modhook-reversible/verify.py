"""Answer the question with plain xarray, without modhook: the network learned both directions, and its numbers hold together."""

import sys

import xarray as xr

cube = xr.open_datatree(sys.argv[1], engine="zarr")
accuracy, without = cube["scores"]["accuracy"], cube["directions"]["without"]
assert float(accuracy.sel(stage="unmasked").min()) > 0.95, accuracy.values
for own, other in (("forward", "backward"), ("backward", "forward")):
    kept, lost = (float(accuracy.sel(stage=own, split=split).mean()) for split in (own, other))
    print(f"under the {own} mask: {own} {kept:.2f}, {other} {lost:.2f}")
    assert kept > 0.9, accuracy.values
    assert kept > lost, accuracy.values
counts = cube["directions"]["channels"]
assert (counts.sum("role") == cube.attrs["study"]["model"]["hidden"]).all()
print("channels:", ", ".join(f"{role} {float(counts.sel(role=role).mean()):.1f}" for role in counts["role"].values))
for part in without["part"].values:
    scores = (float(without.sel(part=part, split=split).mean()) for split in ("forward", "backward"))
    print(f"without {part}:", ", ".join(f"{value:.2f}" for value in scores), "(forward, backward)")
# What only one direction keeps, the other can do without better than its owner.
for part, own, other in (("forward only", "forward", "backward"), ("backward only", "backward", "forward")):
    assert float(without.sel(part=part, split=own).mean()) < float(without.sel(part=part, split=other).mean()), without.values
