// The op tables of terse::compiled.
#include "terse/ops/backends.h"

#include "terse/ops/tables.h"

namespace terse {

const Backend& choose_backend(std::optional<Isa> isa, std::optional<DType> dtype) {
  return detail::find_table(isa, dtype);
}

const Backend& choose_cuda_backend(std::optional<DType> dtype) {
  return detail::find_cuda_table(dtype);
}

}  // namespace terse
