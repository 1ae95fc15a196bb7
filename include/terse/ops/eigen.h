// The reference table with its f32 products done by Eigen: what runs where no kernel of ours fits
// the processor. Without TERSE_WITH_EIGEN this is the reference table itself.
//
// Eigen blocks a product by its size, so its bits would depend on how many rows come together; here
// every call has the same number of rows, the last ones zeros.
#pragma once

#include "terse/ops/reference.h"

#ifdef TERSE_WITH_EIGEN
// Eigen's vector width follows the including file's flags, and its symbols carry no trace of it:
// two files of a program with different flags would share one version. So the width is pinned to
// the one that every x86-64 has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("no-avx")
#include <Eigen/Core>
#pragma GCC pop_options
#else
#include <Eigen/Core>
#endif
#endif

namespace terse::eigen {

#ifdef TERSE_WITH_EIGEN

struct EigenProduct {
  static constexpr std::int64_t kBlockRows = 32;

  // As reference::PlainProduct::multiply; y has room for kBlockRows rows.
  static void multiply(const float* x, std::int64_t rows, std::int64_t width, const float* w,
                       std::int64_t columns, float* y) {
    using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Matrix block = Matrix::Zero(kBlockRows, width);
    block.topRows(rows) = Eigen::Map<const Matrix>(x, rows, width);
    Eigen::Map<Matrix>(y, kBlockRows, columns).noalias() =
        block * Eigen::Map<const Matrix>(w, columns, width).transpose();
  }
};

template <class = void>
const Backend& backend(DType compute) {
  static const Backend f32 = reference::Ops<float, float, EigenProduct>::table("eigen");
  return compute == DType::f32 ? f32 : reference::backend(compute);
}

#else

template <class = void>
const Backend& backend(DType compute) {
  return reference::backend(compute);
}

#endif

}  // namespace terse::eigen
