// The Python module _emulated, for tests: the rooms' functions, which run their CUDA kernels in the
// emulator on memory of the CPU, whatever place they are given.
#include <string>
#include <vector>

#include "core/emulator.h"
#include "core/python.h"

namespace py = pybind11;

namespace ecgfast {
namespace {

std::vector<Bind>& rooms() {
  static std::vector<Bind> known;
  return known;
}

}  // namespace

Room::Room(Bind bind) { rooms().push_back(bind); }

}  // namespace ecgfast

PYBIND11_MODULE(_emulated, m) {
  using namespace ecgfast;
  m.def("use_schedules", &emulator::use_schedules, py::arg("count"), py::arg("seed") = 1);
  for (const Bind bind : rooms()) bind(m);
}
