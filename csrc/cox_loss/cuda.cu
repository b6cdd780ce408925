// The CUDA kernel of cox_loss; see contract.h.
#include "core/cuda.cuh"
#include "cox_loss/contract.h"
#include "cox_loss/scan.h"

namespace ecgfast::cox_loss::cuda {
namespace {

constexpr int kThreads = 512;

// The sum over the threads before this one, or after it.
__device__ static inline LogSum sum_of_others(LogSum own, bool after) {
  ECGFAST_SHARED(double, largest, kThreads);
  ECGFAST_SHARED(double, scaled, kThreads);
  const int place = after ? kThreads - 1 - thread_index() : thread_index();
  sync_block();  // a former call may still be reading
  for (int step = 1; step < 2 * kThreads; step *= 2) {
    largest[place] = own.largest;
    scaled[place] = own.scaled;
    sync_block();
    // in the last round all is summed up, and each takes what its neighbour has
    const int from = step < kThreads ? place - step : place - 1;
    const LogSum other = from >= 0 ? LogSum{largest[from], scaled[from]} : LogSum{};
    if (step < kThreads) {
      own.add(other);
    } else {
      own = other;
    }
    sync_block();
  }
  return own;
}

// One block. Grid: 1. A thread takes the groups that begin in its share of the rows. Reads x,
// order, time and event three times, writes loss, dx and its scratch.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) forward_kernel(Forward job) {
  using A = acc_t<T>;
  const std::int64_t count = job.x.size[0];
  const Sorted<T, Global<const T>, Global<const std::int64_t>, Global<const double>, Global<double>>
      rows{global<const T>(job.x),
           global<const std::int64_t>(job.order),
           global<const double>(job.time),
           global<const double>(job.event),
           update<double>(job.scratch),
           count,
           job.efron};
  const std::int64_t begin = rows.opening(thread_index() * count / kThreads);
  const std::int64_t end = rows.opening((thread_index() + 1) * count / kThreads);

  LogSum risk;
  rows.gather(begin, end, risk);
  risk = sum_of_others(risk, false);
  LogSum steps;
  Tally tally = rows.forward(begin, end, risk, steps);
  steps = sum_of_others(steps, true);
  tally.loss = block_sum<kThreads>(tally.loss);
  tally.events = block_sum<kThreads>(tally.events);
  tally.wrong = block_sum<kThreads>(tally.wrong);

  const Global<A> grad = global<A>(job.grad_x);
  if (tally.wrong == 0) rows.backward(begin, end, steps, tally.events, grad);
  for (std::int64_t i = thread_index(); tally.wrong > 0 && i < count; i += kThreads) {
    grad[i] = static_cast<A>(NAN);
  }
  if (thread_index() == 0) global<A>(job.loss)[0] = static_cast<A>(tally.mean());
}

}  // namespace

void forward(const Forward& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    launch<forward_kernel<decltype(zero)>>({1}, kThreads, 0, stream, job);
  });
}

}  // namespace ecgfast::cox_loss::cuda
