// Global memory in the emulator: what a job writes, and whether it wrote all of it; see emulator.h.
#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/emulator.h"

namespace ecgfast::emulator {

struct Buffer {
  View view;
  bool wholly;  // an output: to be written in every element
  std::string kernel;
  std::int64_t reach;                 // elements, gaps between rows included
  std::vector<std::uint32_t> writer;  // serial of the block that wrote an element last, 0: nobody
  std::vector<char> before;           // the bytes as the face left them
  std::vector<char> result;           // the bytes after the first schedule
  char* data() const { return static_cast<char*>(view.data); }
};

namespace {

constexpr std::uint32_t kByAtomics = 0xffffffffu;

std::vector<std::unique_ptr<Buffer>> buffers;
bool first_schedule = true;

int bytes_of(DType dtype) {
  constexpr int kBytes[] = {2, 2, 4, 8, 1, 2, 4, 8};
  return kBytes[static_cast<int>(dtype)];
}

std::string written_out(const std::int64_t* values, int dims) {
  std::string text = "(";
  for (int d = 0; d < dims; ++d) text += (d == 0 ? "" : ", ") + std::to_string(values[d]);
  return text + ")";
}

// Calls body(offset in elements, index) for every element of a view, in C order.
template <typename Body>
void for_each_element(const View& view, const Body& body) {
  if (extent(view, 0) == 0) return;
  std::int64_t index[kMaxDims] = {};
  std::int64_t offset = 0;
  for (;;) {
    body(offset, index);
    int d = view.dims - 1;
    for (; d >= 0; --d) {
      offset += view.stride[d];
      if (++index[d] < view.size[d]) break;
      offset -= view.size[d] * view.stride[d];
      index[d] = 0;
    }
    if (d < 0) return;
  }
}

void poison(Buffer& buffer) {
  const int bytes = bytes_of(buffer.view.dtype);
  for_each_element(buffer.view, [&](std::int64_t offset, const std::int64_t*) {
    std::memset(buffer.data() + offset * bytes, kNaN, bytes);
  });
}

void check_result(Buffer& buffer) {
  const View& view = buffer.view;
  const int bytes = bytes_of(view.dtype);
  std::int64_t missing = 0;
  std::int64_t different = 0;
  std::string first;
  const auto note = [&](std::int64_t& counter, const std::int64_t* index) {
    if (++counter == 1) first = written_out(index, view.dims);
  };
  for_each_element(view, [&](std::int64_t offset, const std::int64_t* index) {
    if (buffer.wholly && buffer.writer[offset] == 0) note(missing, index);
  });
  const std::string shape = written_out(view.size, view.dims);
  if (missing > 0) {
    throw std::runtime_error(buffer.kernel + ": of its output " + shape + " " +
                             std::to_string(missing) + " elements were left unwritten, first " +
                             first);
  }
  if (first_schedule) {
    buffer.result.assign(buffer.data(), buffer.data() + buffer.reach * bytes);
    return;
  }
  for_each_element(view, [&](std::int64_t offset, const std::int64_t* index) {
    if (std::memcmp(buffer.data() + offset * bytes, &buffer.result[offset * bytes], bytes) != 0) {
      note(different, index);
    }
  });
  if (different > 0) {
    throw std::runtime_error(buffer.kernel + ": of its output " + shape + " " +
                             std::to_string(different) +
                             " elements depend on the order in which threads run, first " + first);
  }
}

}  // namespace

void check_dtype(const View& view, bool floating, std::size_t bytes) {
  const bool is_floating = view.dtype <= DType::f64;
  if (floating != is_floating || static_cast<int>(bytes) != bytes_of(view.dtype)) {
    trap("takes a view " + written_out(view.size, view.dims) + " of another dtype for one of " +
         std::to_string(8 * bytes) + "-bit " + (floating ? "floats" : "integers"));
  }
}

std::int64_t extent(const View& view, int first_axis) {
  std::int64_t last = 0;
  for (int d = 0; d < view.dims; ++d) {
    if (view.size[d] == 0) return 0;
    if (d >= first_axis) last += (view.size[d] - 1) * view.stride[d];
  }
  return last + 1;
}

Buffer* written(const View& view, bool wholly) {
  const std::int64_t reach = extent(view, 0);
  if (reach == 0) return nullptr;
  for (const auto& known : buffers) {
    if (known->view.data == view.data && known->reach == reach) {
      if (known->wholly != wholly) trap("takes a view as an output here, for update() elsewhere");
      return known.get();
    }
  }
  auto fresh = std::make_unique<Buffer>(Buffer{view, wholly, kernel_name(), reach, {}, {}, {}});
  fresh->before.assign(fresh->data(), fresh->data() + reach * bytes_of(view.dtype));
  fresh->writer.assign(static_cast<std::size_t>(reach), 0);
  if (wholly) poison(*fresh);
  buffers.push_back(std::move(fresh));
  return buffers.back().get();
}

void touch_global(Buffer* buffer, const void* address, int bytes, Access access) {
  const int size = bytes_of(buffer->view.dtype);
  std::int64_t element = (static_cast<const char*>(address) - buffer->data()) / size;
  for (int done = 0; done < bytes; done += size, ++element) {
    std::uint32_t& writer = buffer->writer[static_cast<std::size_t>(element)];
    const bool reads = access == Access::read || access == Access::atomic;
    if (reads && writer == 0 && buffer->wholly) {
      trap("reads element " + std::to_string(element) + " of the output " +
           written_out(buffer->view.size, buffer->view.dims) +
           ", which nobody has written (const T for what is only read)");
    }
    if (access == Access::read) continue;
    if (access == Access::write && writer >= now.first_serial && writer != now.serial &&
        writer != kByAtomics) {
      trap("writes element " + std::to_string(element) + " of the output " +
           written_out(buffer->view.size, buffer->view.dims) +
           ", into which another block of the launch has written something else");
    }
    writer = access == Access::atomic ? kByAtomics : now.serial;
  }
}

void begin_schedule() {
  for (const auto& buffer : buffers) {
    std::fill(buffer->writer.begin(), buffer->writer.end(), 0);
    std::memcpy(buffer->data(), buffer->before.data(), buffer->before.size());
    if (buffer->wholly) poison(*buffer);
  }
}

void end_schedule() {
  for (const auto& buffer : buffers) check_result(*buffer);
  first_schedule = false;
}

void end_job(bool failed) {
  if (failed) {
    for (const auto& buffer : buffers) {
      std::memcpy(buffer->data(), buffer->before.data(), buffer->before.size());
    }
  }
  buffers.clear();
  first_schedule = true;
}

}  // namespace ecgfast::emulator
