// lead_attention for Python: guards memory, cuts the work, names the functions.
#include "core/border.h"
#include "core/python.h"
#include "lead_attention/contract.h"

namespace ecgfast::lead_attention {
namespace {

constexpr std::int64_t kGrain = 16;  // rows: a vector of the widest instruction set

// Bytes of scratch that a worker needs on the CPU: all columns turned, and two lines of weights.
std::int64_t scratch_bytes(const View& qkv, bool backward) {
  const std::int64_t columns = backward ? 7 * (qkv.size[3] / 3) : 4 * (qkv.size[3] / 3);
  return kMostVectorBytes * qkv.size[2] * (columns + 2);
}

void expect_job(const View& qkv, const View& y, const View& scratch, std::int64_t heads,
                bool backward, const Place& place) {
  expect(qkv.dims == 4 && qkv.size[2] > 0 && qkv.size[3] > 0 && qkv.size[3] % 3 == 0,
         "qkv must be (N, L, S, 3 D) with S and D > 0");
  const std::int64_t width = qkv.size[3] / 3;
  expect(heads > 0 && width % heads == 0 && width / heads <= kMostColumns,
         "heads must divide D into parts of 1 to 8");
  expect(heads * qkv.size[2] <= kMostQueries, "heads * S must be 4096 at most");
  expect(qkv.size[0] * qkv.size[1] <= INT32_MAX, "qkv has more than 2^31 rows");
  expect_float(qkv, "qkv");
  expect_dense_last(qkv, "qkv");
  expect_shape(y, "y", {qkv.size[0], qkv.size[1], qkv.size[2], width});
  expect_dtype(y, "y", qkv.dtype);
  expect_dense_last(y, "y");
  const bool host = place.device < 0;
  expect_dtype(scratch, "scratch", DType::u8);
  expect_dense(scratch, "scratch");
  expect(scratch.dims == 2 && (!host || (scratch.size[0] >= place.threads &&
                                         scratch.size[1] >= scratch_bytes(qkv, backward))),
         "scratch must be (threads, lead_attention_scratch)");
}

void run_forward(View qkv, View y, View maps, View scratch, std::int64_t heads, Place place) {
  expect_job(qkv, y, scratch, heads, false, place);
  expect_dense(y, "y");
  const std::int64_t tokens = qkv.size[2];
  if (maps.dims != 1 || maps.size[0] != 0) {  // else none are asked for
    expect_shape(maps, "maps", {qkv.size[0], qkv.size[1], heads, tokens, tokens});
    expect_dense(maps, "maps");
  } else {
    maps.data = nullptr;
  }
  expect_dtype(maps, "maps", qkv.dtype);
  expect_place({qkv, y, maps, scratch}, place);
  run(Forward{qkv, y, maps, scratch, heads}, qkv.size[0] * qkv.size[1], kGrain, place,
      ECGFAST_LEVELS(forward));
}

void run_backward(View qkv, View grad_y, View grad_qkv, View scratch, std::int64_t heads,
                  Place place) {
  expect_job(qkv, grad_y, scratch, heads, true, place);
  expect_shape(grad_qkv, "grad_qkv", {qkv.size[0], qkv.size[1], qkv.size[2], qkv.size[3]});
  expect_dtype(grad_qkv, "grad_qkv", qkv.dtype);
  expect_dense(grad_qkv, "grad_qkv");
  expect_place({qkv, grad_y, grad_qkv, scratch}, place);
  run(Backward{qkv, grad_y, grad_qkv, scratch, heads}, qkv.size[0] * qkv.size[1], kGrain, place,
      ECGFAST_LEVELS(backward));
}

}  // namespace

ECGFAST_BIND(lead_attention, m) {
  using Unlocked = pybind11::call_guard<pybind11::gil_scoped_release>;
  m.def("lead_attention_scratch", &scratch_bytes);
  m.def("lead_attention_forward", &run_forward, Unlocked());
  m.def("lead_attention_backward", &run_backward, Unlocked());
}

}  // namespace ecgfast::lead_attention
