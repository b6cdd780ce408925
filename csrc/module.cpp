// The Python module _C: the rooms that announced themselves, and facts about this build.
#include <string>
#include <vector>

#include "core/isa.h"
#include "core/python.h"

namespace py = pybind11;

namespace ecgfast {
namespace {

std::vector<Bind>& rooms() {
  static std::vector<Bind> known;
  return known;
}

Isa isa_named(const std::string& name) {
  for (int level = 0; level < 3; ++level) {
    if (name == kIsaNames[level]) return static_cast<Isa>(level);
  }
  throw std::invalid_argument("no instruction set is called " + name);
}

py::dict build_info() {
  py::list levels;
  for (int level = 0; level < 3; ++level) {
    if (has_isa(static_cast<Isa>(level))) levels.append(kIsaNames[level]);
  }
  py::dict info;
  info["compiler"] = __VERSION__;
  info["cuda_architectures"] = ECGFAST_CUDA_ARCHITECTURES;  // "" in a build without CUDA
  info["isa"] = kIsaNames[static_cast<int>(isa())];
  info["isa_here"] = levels;
  return info;
}

}  // namespace

Room::Room(Bind bind) { rooms().push_back(bind); }

}  // namespace ecgfast

PYBIND11_MODULE(_C, m) {
  using namespace ecgfast;
  m.def("build_info", &build_info);
  m.def("use_isa", [](const std::string& name) { use_isa(isa_named(name)); });
  for (const Bind bind : rooms()) bind(m);
}
