// CUDA kernels of preprocess; see contract.h.
#include "preprocess/line.cuh"

namespace ecgfast::preprocess::cuda {
namespace {

// One block a row, or a record if a normalisation spans it. Grid: rows or records. Reads x, writes
// y and a count a row; for each normalisation of a record its rows also go to `held` and back.
template <typename T, typename A>
__global__ void __launch_bounds__(kThreads, sizeof(A) == 8 ? 2 : 3)
    preprocess_kernel(const __grid_constant__ Preprocess job,
                      const __grid_constant__ Cascades<A> cascades) {
  ECGFAST_SHARED(A, states, 2 * kMaxSections);
  ECGFAST_SHARED(A, joint, kJoint);
  ECGFAST_SHARED(int, first_value, kThreads);
  ECGFAST_SHARED(int, last_value, kThreads);
  const Tools<A> tools{states, joint, first_value, last_value};
  const std::int64_t size = job.moments * static_cast<std::int64_t>(sizeof(T));
  Line<T> line{dynamic_shared<T>(), dynamic_shared<T>((job.buffers - 1) * size), 0, 0};
  const Shared<T> came = dynamic_shared<T>(job.buffers * size);  // a Came for each row of a record
  const int front = static_cast<int>(job.front);
  const int leads = static_cast<int>(job.x.size[1]);
  const int rows = job.by_record ? leads : 1;
  const std::int64_t first_row = static_cast<std::int64_t>(block_index()) * rows;

  Level<T> level{};
  int held = 0;  // samples
  int next = 0;
  for (int from = 0; from <= job.steps; from = next + 1) {
    for (next = from; next < job.steps && !spans_record(job.step[next]); ++next) {
    }
#pragma unroll 1
    for (int l = 0; l < rows; ++l) {
      const std::int64_t r = first_row + l;
      bool flat;
      if (from == 0) {
        const Came how = load_row(job, r, line, tools);
        flat = how != Came::moving;
        if (job.by_record && thread_index() == 0) came[l] = static_cast<T>(static_cast<int>(how));
      } else {
        flat = came[l] != T(0);
        line.first = front;
        line.samples = held;
        const Shared<T> x = line.begin();
        const Global<T> from_record = update<T>(job.held) + r * job.held_step;
        for (int t = thread_index(); t < held; t += kThreads) x[t] = level(T(from_record[t]));
        sync_block();
      }
#pragma unroll 1
      for (int s = from; s < next; ++s) {
        const Step& step = job.step[s];
        if (step.kind == Kind::filter) {
          filter(step.filter, cascades, s, line, tools);
        } else if (step.kind == Kind::normalise) {
          normalise(step.normalise, r % leads, flat, line);
        } else if (step.kind == Kind::crop) {
          line.first += static_cast<int>(step.start);
        } else {
          resample(step, line, front);
        }
        line.samples = static_cast<int>(step.samples);
      }
      if (next == job.steps) {
        store_row(job, r, line);
      } else {
        const Shared<T> x = line.begin();
        const Global<T> to_record = update<T>(job.held) + r * job.held_step;
        for (int t = thread_index(); t < line.samples; t += kThreads) to_record[t] = x[t];
      }
      sync_block();
    }
    if (next == job.steps) return;

    held = line.samples;
    const T absent = static_cast<T>(static_cast<int>(Came::absent));
    bool flat = true;
    int present = 0;
    for (int l = 0; l < rows; ++l) {
      present += came[l] != absent ? 1 : 0;
      flat = flat && came[l] != T(0);
    }
    const bool none = present == 0;  // then all count
    // Each thread meets what it has written itself.
    level = level_of<T>(
        job.step[next].normalise, static_cast<std::int64_t>(none ? rows : present) * held, flat,
        [&](const auto& body) {
          for (int l = 0; l < rows; ++l) {
            if (!none && came[l] == absent) continue;
            const Global<T> x = update<T>(job.held) + (first_row + l) * job.held_step;
            for (int t = thread_index(); t < held; t += kThreads) body(T(x[t]));
          }
        });
  }
}

template <typename T, typename A>
void start(const Preprocess& job, std::uint64_t stream) {
  Cascades<A> cascades{};
  int sections = 0;
  for (int s = 0; s < job.steps; ++s) {
    if (job.step[s].kind != Kind::filter) continue;
    const Modal<A> modal = modal_of<A>(*job.step[s].filter.sections, ModalForm::drive_first);
    cascades.gain[s] = modal.gain;
    cascades.first[s] = sections;
    cascades.count[s] = modal.count;
    for (int k = 0; k < modal.count; ++k) cascades.section[sections++] = modal.section[k];
  }
  const std::int64_t blocks = job.x.size[0] * (job.by_record ? 1 : job.x.size[1]);
  launch<preprocess_kernel<T, A>>({static_cast<unsigned>(blocks)}, kThreads,
                                  static_cast<std::size_t>(shared_bytes(job)), stream, job,
                                  cascades);
}

bool needs_double(const Preprocess& job) {
  for (int s = 0; s < job.steps; ++s) {
    const Step& step = job.step[s];
    if (step.kind == Kind::filter && ecgfast::needs_double(*step.filter.sections)) return true;
  }
  return false;
}

}  // namespace

void preprocess(const Preprocess& job, std::uint64_t stream) {
  if (job.wide) {
    start<double, double>(job, stream);
  } else if (needs_double(job)) {
    start<float, double>(job, stream);
  } else {
    start<float, float>(job, stream);
  }
}

}  // namespace ecgfast::preprocess::cuda
