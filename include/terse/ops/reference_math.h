// The formulas of a transformer on one row or one number, as plain loops: what reference.h is made
// of and what every fast version is held to. Real is float to run, double to judge.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

#include "terse/ops/backend.h"

namespace terse::reference {

// gelu_erf: x/2 (1 + erf(x / sqrt 2)), Hendrycks and Gimpel 2016, arXiv:1606.08415, with its tanh
// approximation; silu: x sigmoid(x), the "swish" of Ramachandran et al. 2017, arXiv:1710.05941.
template <class Real>
Real activate(Activation activation, Real x) {
  switch (activation) {
    case Activation::gelu_erf:
      return x / 2 * (1 + std::erf(x / std::numbers::sqrt2_v<Real>));
    case Activation::gelu_tanh: {
      const Real scale = std::sqrt(2 * std::numbers::inv_pi_v<Real>);
      return x / 2 * (1 + std::tanh(scale * (x + Real(0.044715) * x * x * x)));
    }
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::relu:
      return x > 0 ? x : x == x ? Real(0) : x;
    case Activation::tanh:
      return std::tanh(x);
    case Activation::none:
      break;
  }
  return x;
}

// y = (x - mean(x)) / sqrt(mean((x - mean)^2) + eps) * weight + bias over one row; y may alias x.
// Source: Ba et al. 2016, arXiv:1607.06450.
template <class Real>
void layer_norm(const Real* x, const Real* weight, const Real* bias, Real eps, std::int64_t width,
                Real* y) {
  Real sum = 0;
  for (std::int64_t i = 0; i < width; ++i) sum += x[i];
  const Real mean = sum / static_cast<Real>(width);
  Real squares = 0;
  for (std::int64_t i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const Real inverse = 1 / std::sqrt(squares / static_cast<Real>(width) + eps);
  for (std::int64_t i = 0; i < width; ++i) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

// y = x / sqrt(mean(x^2) + eps) * (offset + weight) over one row; y may alias x. offset is 0
// (Llama) or 1 (Gemma). Source: Zhang and Sennrich 2019, arXiv:1910.07467.
template <class Real>
void rms_norm(const Real* x, const Real* weight, Real offset, Real eps, std::int64_t width,
              Real* y) {
  Real squares = 0;
  for (std::int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
  const Real inverse = 1 / std::sqrt(squares / static_cast<Real>(width) + eps);
  for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] * inverse * (offset + weight[i]);
}

// Rotates the halves x1, x2 of one head: x1 cos - x2 sin, x2 cos + x1 sin, in place. cos and sin
// are those of the row's position, (head_dim / 2). Source: Su et al. 2021, arXiv:2104.09864, in the
// half-split layout of the published checkpoints.
template <class Real>
void rotate(Real* x, const Real* cos, const Real* sin, std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t k = 0; k < half; ++k) {
    const Real first = x[k];
    const Real second = x[half + k];
    x[k] = first * cos[k] - second * sin[k];
    x[half + k] = second * cos[k] + first * sin[k];
  }
}

// In place: scores -> probabilities over count keys; minus infinity marks a key that is not seen. A
// row that sees nothing becomes zeros, never 0/0.
template <class Real>
void softmax(Real* scores, std::int64_t count) {
  constexpr Real kUnseen = -std::numeric_limits<Real>::infinity();
  Real most = kUnseen;
  bool sees_any = false;  // a NaN is not "unseen": it has to reach the result
  for (std::int64_t j = 0; j < count; ++j) {
    most = std::max(most, scores[j]);
    sees_any = sees_any || scores[j] != kUnseen;
  }
  if (!sees_any) {
    std::fill(scores, scores + count, Real(0));
    return;
  }
  Real sum = 0;
  for (std::int64_t j = 0; j < count; ++j) sum += scores[j] = std::exp(scores[j] - most);
  for (std::int64_t j = 0; j < count; ++j) scores[j] /= sum;
}

// Whether query i sees key j, both counted from the start of the sequence with its prefix.
constexpr bool sees(const AttentionRule& rule, std::int64_t i, std::int64_t j) {
  if (rule.causal && j > i) return false;
  if (rule.window > 0 && i - j >= rule.window) return false;
  return rule.causal || rule.window == 0 || j - i < rule.window;
}

// The largest |quantized| weight: the range is symmetric, so that -x gives minus what x gives.
inline constexpr int kInt8Most = 127;
// Steps from the least to the largest element of an operand row. Rounding adds one at most, so that
// what is counted from the least fits a byte.
inline constexpr int kInt8Steps = 254;
// A row all of whose elements are smaller than this counts as zeros: 127 / |x| would overflow.
inline constexpr float kInt8Least = 0x1p-100f;
// The widest row that int8 products take: they cannot overflow an i32, its bytes counted from the
// least, 255 * 127 * 32,768 < 2^31, and the sum of a column's elements is 128 times a number of 16
// bits, and seven more.
inline constexpr std::int64_t kInt8MostWidth = 32768;

// Weights: symmetric. quantized[i] = x[i] (127 / max|x|), rounded to nearest even; returns the
// scale max|x| / 127, so that x[i] is about scale * quantized[i], to scale / 2. A row of zeros has
// scale 0. If an element is not finite the scale is not either, and with it every product of the
// row (what the elements are then is of no matter; here zeros).
template <class Real>
Real quantize(const Real* x, std::int64_t width, std::int8_t* quantized) {
  Real most = 0;
  bool finite = true;
  for (std::int64_t i = 0; i < width; ++i) {
    most = std::max(most, std::abs(x[i]));
    finite = finite && std::isfinite(x[i]);
  }
  if (!finite || most < static_cast<Real>(kInt8Least)) {
    std::fill(quantized, quantized + width, std::int8_t{0});
    return finite ? Real(0) : std::numeric_limits<Real>::quiet_NaN();
  }
  const Real inverse = kInt8Most / most;
  for (std::int64_t i = 0; i < width; ++i) {
    quantized[i] = static_cast<std::int8_t>(std::nearbyint(x[i] * inverse));
  }
  return most / kInt8Most;
}

// Operands: the range from the least to the largest element, and zero, in 254 steps, since rows
// after an activation are nearly of one sign. quantized[i] = x[i] (1 / scale), rounded to nearest
// even; returns the scale, max / 254 - min / 254, min <= 0 <= max. Zero stays zero; all quantized
// lie within 255 of the least. Zeros and what is not finite: as above.
template <class Real>
Real quantize_operand(const Real* x, std::int64_t width, std::int16_t* quantized) {
  Real least = 0, most = 0;
  bool finite = true;
  for (std::int64_t i = 0; i < width; ++i) {
    least = std::min(least, x[i]);
    most = std::max(most, x[i]);
    finite = finite && std::isfinite(x[i]);
  }
  const Real scale = most / kInt8Steps - least / kInt8Steps;
  if (!finite || scale < static_cast<Real>(kInt8Least) / kInt8Steps) {
    std::fill(quantized, quantized + width, std::int16_t{0});
    return finite ? Real(0) : std::numeric_limits<Real>::quiet_NaN();
  }
  const Real inverse = 1 / scale;
  for (std::int64_t i = 0; i < width; ++i) {
    quantized[i] = static_cast<std::int16_t>(std::nearbyint(x[i] * inverse));
  }
  return scale;
}

// x / max(|x|_2, 1e-12), in place.
template <class Real>
void l2_normalize(Real* x, std::int64_t width) {
  Real squares = 0;
  for (std::int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
  const Real norm = std::max(std::sqrt(squares), Real(1e-12));
  for (std::int64_t i = 0; i < width; ++i) x[i] /= norm;
}

}  // namespace terse::reference
