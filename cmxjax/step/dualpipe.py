r"""Time of DualPipe, in closed form, with uneven stages.

Micro-batches enter at both ends of p stages. Device r of the n = p/2 on one half holds
the near stage r and the far stage p - 1 - r; its mirror image runs the same program. The
makespan is the longest path through the published order, and paths of one shape win:

1. Fill: micro-batches come in over the near stages and out over the far ones until the
   innermost device is done with its first backward pass. Either it worked all the while;
   or a device ran all its first forward passes and a backward pass went in from there;
   or the first round trip ended with the outermost device's forward passes done.
2. Steady pairs: the path goes out to the slowest device r, stays for m/2 - 2n + r rounds
   of an inward pair (forward near, backward far) and an outward one (forward far,
   backward near), goes in to the innermost device and out to the outermost. Or device r
   worked by itself since its first micro-batch, or until its last steady pair.
3. Drain: the last backward pass goes in to a device, which works through what is left
   and keeps the weights' gradients for the end or sends its last pass out; or the pass
   turns at the innermost device.

Equal stages idle, with n > 1, for

$$ (n-1) \max(2F,\; 2F + b - W,\; 2b - W + \tfrac{n-2}{n-1} F) $$

with b the gradients of inputs alone. This is the published bubble (n - 1)(F&B + B - 3W)
where b = F; the published order idles longer where b < F, and less where b > F and W is
no longer than b.

Against a simulation of the order, over random stages that differ by a third, the error
is below 0.1 % in the mean and 1 % at most; two micro-batches a stage may take up to 1.3 %
longer in one case of several thousand, where the path turns at devices between those
above.

Reference: DeepSeek-V3, arXiv 2412.19437, figure 5 and table 2; the order is that of its
published program, github.com/deepseek-ai/DualPipe.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar, Sharpness
from .line import Line


def dualpipe_s(line: Line, m: Scalar, sharpness: Sharpness) -> Scalar:
    """Time of all micro-batches through all stages: the module's longest path.

    Stages must be even in number, and micro-batches even and at least twice as many, or
    there is no such schedule; between these numbers the time is interpolated.
    """
    count = (line.ahead.shape[0] + 1) // 2  # devices; arrays are over them

    def near(values: Array) -> Float[Array, " device"]:
        return values[:count]

    def far(values: Array) -> Float[Array, " device"]:
        return values[::-1][:count]

    devices = smooth.larger(0.5 * line.stages, 1.0)
    inner = devices - 1.0 - near(line.ahead)  # devices further in
    known = inner[-1] + 1.0  # the innermost device, and those further in like it
    f, b, w = (near(x) for x in line.work)
    far_f, far_b, far_w = (far(x) for x in line.work)
    # sums over the devices further out
    f_out, b_out, w_out = (near(x) for x in line.before)
    far_f_out, far_b_out, far_w_out = (far(x) for x in line.after)
    split, way_out = far_f + far_b + far_w, far_f + b + w
    cycle, way_out_out = f + far_b + far_w + way_out, far_f_out + b_out + w_out
    cycle_out = f_out + far_b_out + far_w_out + way_out_out

    def total(further_out: Array, one_device: Array) -> Scalar:
        """Sum over all devices."""
        return further_out[-1] + known * one_device[-1]

    first = f_out + 2.0 * inner * f
    filled = first + (devices - inner) * (f + far_f)
    trip = first + f + far_f_out + far_f
    alone = filled + inner * split + cycle + way_out_out
    # a device that splits its first backward pass holds up the next but innermost one,
    # of which its mean over devices is known
    mean = total(f_out + far_w_out, f + far_w) / devices
    later = smooth.larger(split + mean - (far_b + far_w + way_out)[-1], 0.0)
    later = later * smooth.within(inner, 0.0, 1.0)
    busy = (0.5 * m - devices - 1.0 - inner) * cycle
    back = far_b_out + far_b + (inner + 1.0) * b
    kept = back + devices * w + 0.5 * (devices - 1.0 - inner) * (far_w - w)
    last = line.first.weight
    drain = smooth.larger(kept, back + inner * w + b_out + last)
    longest = jnp.stack([filled - far_b_out + later, trip, later, drain], axis=1)
    most_filled, most_trip, most_later, most_drain = jnp.unstack(
        smooth.largest(longest, None)
    )
    inward, turn = total(far_b_out, far_b), far_w[-1] + total(way_out_out, way_out)
    fill = smooth.larger(most_filled, most_trip + most_later) + inward
    works = total(f_out, f) + devices * (f + far_f)[-1] + far_b[-1]
    fill = smooth.larger(fill, works) + turn
    away = busy - cycle_out - cycle + total(cycle_out, cycle)
    steady = smooth.larger(away, busy + inner * (cycle - f))
    drain = smooth.larger(most_drain, inward + total(b_out, b) + last)
    time = smooth.larger(fill, alone) + steady + drain + line.work.weight[-1]
    return smooth.largest(near(line.present) * time, sharpness)
