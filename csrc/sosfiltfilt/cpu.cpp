// CPU kernels of sosfiltfilt and sosfilt, compiled once for each instruction set; see contract.h.
#include "core/biquad_lanes.h"
#include "core/gaps_lanes.h"
#include "sosfiltfilt/contract.h"

namespace ecgfast::sosfiltfilt::ECGFAST_ISA {
namespace {

// Rows side by side; lanes that no row takes read the first one.
template <typename T>
struct Rows {
  T* at[kGroup];
  int count;

  Rows(const View& view, Range range) : count(static_cast<int>(range.end - range.begin)) {
    for (int lane = 0; lane < kGroup; ++lane) {
      at[lane] = row<T>(view, range.begin + (lane < count ? lane : 0));
    }
  }

  void read(std::int64_t begin, std::int64_t end, T* lanes) const {
    const T* from[kGroup];
    for (int lane = 0; lane < kGroup; ++lane) from[lane] = at[lane] + begin;
    to_lanes(from, end - begin, lanes);
  }

  void write(std::int64_t begin, std::int64_t end, const T* lanes) const {
    T* to[kGroup];
    for (int lane = 0; lane < kGroup; ++lane) to[lane] = at[lane] + begin;
    from_lanes(lanes, end - begin, to, count);
  }
};

// A row in parts of about equal length, none longer than what scratch holds beside the two edges.
// With one part all stays in scratch; more of them pass through the output between the directions.
struct Parts {
  std::int64_t samples, count;

  Parts(std::int64_t all, std::int64_t most) : samples(all), count((all + most - 1) / most) {}
  std::int64_t begin(std::int64_t part) const { return samples * part / count; }
  std::int64_t length(std::int64_t part) const { return begin(part + 1) - begin(part); }
};

// Scratch of one thread: edge moments, a part, edge moments.
template <typename T>
struct Scratch {
  T *head, *body, *tail;
  Parts parts;

  Scratch(const View& scratch, int worker, std::int64_t samples, std::int64_t edge)
      : head(record<T>(scratch, worker)),
        body(head + edge * kGroup),
        tail(record<T>(scratch, worker) + (scratch.size[1] - edge) * kGroup),
        parts(samples, scratch.size[1] - 2 * edge) {}
};

// Counts the gaps of a part in lanes, and fills them.
template <typename T>
void mend(OnGap how, const Rows<T>& x, std::int64_t samples, std::int64_t begin, std::int64_t end,
          T* lanes, std::int32_t* gaps) {
  std::int32_t found[kGroup] = {};
  if (!count_gaps(lanes, end - begin, found)) return;
  for (int lane = 0; lane < x.count; ++lane) {
    gaps[lane] += found[lane];
    if (found[lane] == 0 || how == OnGap::keep) continue;
    fill_gaps(x.at[lane], samples, how, lanes + lane, kGroup, begin, end);
  }
}

template <typename T>
void forward_rows(const Forward& job, Range range) {
  const std::int64_t samples = job.x.size[2];
  const std::int64_t edge = job.edge;
  const Rows<T> x(job.x, range);
  const Rows<T> y(job.y, range);
  const Scratch<T> s(job.scratch, range.worker, samples, edge);
  std::int32_t gaps[kGroup] = {};
  States states;
  const std::int64_t last = s.parts.count - 1;
  for (std::int64_t part = 0; part <= last; ++part) {
    const std::int64_t begin = s.parts.begin(part);
    const std::int64_t length = s.parts.length(part);
    x.read(begin, begin + length, s.body);
    mend(job.on_gap, x, samples, begin, begin + length, s.body, gaps);
    if (part == last) {
      extend_after(job.pad, edge, s.body + (length - 1) * kGroup, s.tail);
    }
    if (part == 0) {
      extend_before(job.pad, edge, s.body);
      start_steady(job.sections, s.head, states);
      filter(job.sections, s.head, edge + length, Direction::forward, states);
    } else {
      filter(job.sections, s.body, length, Direction::forward, states);
    }
    if (part != last) y.write(begin, begin + length, s.body);
  }
  if (edge > 0) {
    filter(job.sections, s.tail, edge, Direction::forward, states);
    start_steady(job.sections, s.tail + (edge - 1) * kGroup, states);
    filter(job.sections, s.tail, edge, Direction::backward, states);
  } else {
    start_steady(job.sections, s.body + (s.parts.length(last) - 1) * kGroup, states);
  }
  for (std::int64_t part = last; part >= 0; --part) {  // nothing looks at the head again
    const std::int64_t begin = s.parts.begin(part);
    const std::int64_t length = s.parts.length(part);
    if (part != last) y.read(begin, begin + length, s.body);
    filter(job.sections, s.body, length, Direction::backward, states);
    y.write(begin, begin + length, s.body);
  }
  std::int32_t* const counts = static_cast<std::int32_t*>(job.gaps.data) + range.begin;
  for (int lane = 0; lane < x.count; ++lane) counts[lane] = gaps[lane];
}

template <typename T>
void set_zero(T* rows, std::int64_t moments) {
  for (std::int64_t i = 0; i < moments * kGroup; ++i) rows[i] = 0;
}

template <typename T>
void backward_rows(const Backward& job, Range range) {
  const std::int64_t edge = job.edge;
  const Rows<T> g(job.grad_y, range);
  const Rows<T> dx(job.grad_x, range);
  const Scratch<T> s(job.scratch, range.worker, job.grad_y.size[2], edge);
  States states;
  start_at_zero(states);
  const std::int64_t last = s.parts.count - 1;
  for (std::int64_t part = 0; part <= last; ++part) {
    const std::int64_t begin = s.parts.begin(part);
    const std::int64_t length = s.parts.length(part);
    g.read(begin, begin + length, s.body);
    filter(job.sections, s.body, length, Direction::forward, states);
    if (part != last) dx.write(begin, begin + length, s.body);
  }
  set_zero(s.tail, edge);
  filter(job.sections, s.tail, edge, Direction::forward, states);
  T* const end = s.body + (s.parts.length(last) - 1) * kGroup;
  add_rest(job.sections, states, edge > 0 ? s.tail + (edge - 1) * kGroup : end);
  start_at_zero(states);
  filter(job.sections, s.tail, edge, Direction::backward, states);
  for (std::int64_t part = last; part >= 0; --part) {
    const std::int64_t begin = s.parts.begin(part);
    const std::int64_t length = s.parts.length(part);
    if (part != last) dx.read(begin, begin + length, s.body);
    filter(job.sections, s.body, length, Direction::backward, states);
    if (part == last) fold(job.pad, edge, s.tail, kGroup, end);
    if (part == 0) {
      set_zero(s.head, edge);
      filter(job.sections, s.head, edge, Direction::backward, states);
      add_rest(job.sections, states, s.head);
      fold(job.pad, edge, s.body - kGroup, -kGroup, s.body);
    }
    dx.write(begin, begin + length, s.body);
  }
}

// (N, L, K, 2) in scipy's scale, or from it.
void read_states(const Sections& sections, const View& view, Range range, double power,
                 States& states) {
  const double* const z = static_cast<const double*>(view.data);
  start_at_zero(states);
  for (std::int64_t r = range.begin; r < range.end; ++r) {
    for (int k = 0; k < sections.count; ++k) {
      const double scale = power > 0 ? sections.scale[k] : 1 / sections.scale[k];
      for (int j = 0; j < 2; ++j) {
        states.of[k][j][r - range.begin] = scale * z[(r * sections.count + k) * 2 + j];
      }
    }
  }
}

void write_states(const Sections& sections, const View& view, Range range, double power,
                  const States& states) {
  double* const z = static_cast<double*>(view.data);
  for (std::int64_t r = range.begin; r < range.end; ++r) {
    for (int k = 0; k < sections.count; ++k) {
      const double scale = power > 0 ? sections.scale[k] : 1 / sections.scale[k];
      for (int j = 0; j < 2; ++j) {
        z[(r * sections.count + k) * 2 + j] = scale * states.of[k][j][r - range.begin];
      }
    }
  }
}

template <typename T>
void causal_rows(const Causal& job, Range range) {
  const Rows<T> x(job.x, range);
  const Rows<T> y(job.y, range);
  const Scratch<T> s(job.scratch, range.worker, job.x.size[2], 0);
  States states;
  read_states(job.sections, job.zi, range, -1, states);
  for (std::int64_t part = 0; part < s.parts.count; ++part) {
    const std::int64_t begin = s.parts.begin(part);
    const std::int64_t length = s.parts.length(part);
    x.read(begin, begin + length, s.body);
    filter(job.sections, s.body, length, Direction::forward, states);
    y.write(begin, begin + length, s.body);
  }
  write_states(job.sections, job.zf, range, 1, states);
}

template <typename T>
void causal_backward_rows(const CausalBackward& job, Range range) {
  const Rows<T> g(job.grad_y, range);
  const Rows<T> dx(job.grad_x, range);
  const Scratch<T> s(job.scratch, range.worker, job.grad_y.size[2], 0);
  States states;
  read_states(job.sections, job.grad_zf, range, 1, states);
  for (std::int64_t part = s.parts.count - 1; part >= 0; --part) {
    const std::int64_t begin = s.parts.begin(part);
    const std::int64_t length = s.parts.length(part);
    g.read(begin, begin + length, s.body);
    filter_transposed(job.sections, s.body, length, states);
    dx.write(begin, begin + length, s.body);
  }
  write_states(job.sections, job.grad_zi, range, -1, states);
}

// In groups of rows, which a part of the work has whole ones of but at the very end.
template <typename Body>
void each_group(DType dtype, Range rows, const Body& body) {
  const FlushSubnormals calm;
  dispatch_float(dtype, [&](auto zero) {
    for (std::int64_t r = rows.begin; r < rows.end; r += kGroup) {
      body(zero, Range{r, r + kGroup < rows.end ? r + kGroup : rows.end, rows.worker});
    }
  });
}

}  // namespace

void forward(const Forward& job, Range rows) {
  each_group(job.x.dtype, rows,
             [&](auto zero, Range range) { forward_rows<decltype(zero)>(job, range); });
}

void backward(const Backward& job, Range rows) {
  each_group(job.grad_y.dtype, rows,
             [&](auto zero, Range range) { backward_rows<decltype(zero)>(job, range); });
}

void causal(const Causal& job, Range rows) {
  each_group(job.x.dtype, rows,
             [&](auto zero, Range range) { causal_rows<decltype(zero)>(job, range); });
}

void causal_backward(const CausalBackward& job, Range rows) {
  each_group(job.grad_y.dtype, rows,
             [&](auto zero, Range range) { causal_backward_rows<decltype(zero)>(job, range); });
}

}  // namespace ecgfast::sosfiltfilt::ECGFAST_ISA
