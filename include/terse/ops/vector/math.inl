// Elementary functions on vectors. Included once per instruction set, see ops/avx512.h.

// p(x) = c[0] x^(N-1) + ... + c[N-1], by Horner's rule.
template <std::size_t N>
inline Vector polynomial(Vector x, const float (&coefficients)[N]) {
  Vector sum = broadcast(coefficients[0]);
  for (std::size_t i = 1; i < N; ++i) sum = multiply_add(sum, x, broadcast(coefficients[i]));
  return sum;
}

// (2^f - 1) / f on [-0.5, 0.5], Chebyshev fit, relative error 7e-9.
inline Vector exp2_minus_one_over(Vector fraction) {
  constexpr float kCoefficients[] = {1.54531629451e-4f, 1.33908633647e-3f, 9.61808255728e-3f,
                                     5.55035711422e-2f, 2.40226507606e-1f, 6.93147188026e-1f};
  return polynomial(fraction, kCoefficients);
}

inline constexpr float kLog2E = 1.44269504089f;

// 2^x to 1 ULP for x below 128; exactly 1 at 0, exactly 0 below -160 and at minus infinity; a NaN
// stays one.
inline Vector exp2(Vector x) {
  // The constant comes first: the instruction returns its second operand when that is a NaN.
  x = maximum(broadcast(-160.0f), x);
  const Vector whole = nearest_integer(x);
  const Vector fraction = x - whole;
  const Vector power = multiply_add(fraction, exp2_minus_one_over(fraction), broadcast(1.0f));
  return times_power_of_two(power, whole);
}

// e^x to 2 ULP: the part of x log2(e) that rounding loses goes into the fraction.
inline Vector exp(Vector x) {
  constexpr float kLog2ELow = 1.92596303e-8f;  // log2(e) - kLog2E
  x = maximum(broadcast(-120.0f), minimum(broadcast(120.0f), x));
  const Vector whole = nearest_integer(x * broadcast(kLog2E));
  Vector fraction = multiply_add(x, broadcast(kLog2E), zero() - whole);
  fraction = multiply_add(x, broadcast(kLog2ELow), fraction);
  const Vector power = multiply_add(fraction, exp2_minus_one_over(fraction), broadcast(1.0f));
  return times_power_of_two(power, whole);
}

// 1 / (1 + e^-x).
inline Vector sigmoid(Vector x) { return broadcast(1.0f) / (broadcast(1.0f) + exp(zero() - x)); }

// -e / (e + 2) with e = exp(-2|x|) - 1, which is exact to a few ULP near zero too, where the whole
// power of two is 1 and e the product of the fit.
inline Vector tanh(Vector x) {
  const Vector scaled = maximum(broadcast(-40.0f), absolute(x) * broadcast(-2.0f * kLog2E));
  const Vector whole = nearest_integer(scaled);
  const Vector fraction = scaled - whole;
  const Vector scale = times_power_of_two(broadcast(1.0f), whole);
  const Vector less_one =
      multiply_add(scale * fraction, exp2_minus_one_over(fraction), scale - broadcast(1.0f));
  return with_sign_of(zero() - less_one / (less_one + broadcast(2.0f)), x);
}

// x Phi(x): for t = |x| the tail Phi(-t) = exp(-t^2 / 2) R(t), where R, half of the scaled
// complementary error function at t / sqrt 2, is a polynomial of (t - 3) / (t + 3) to a relative
// 2.4e-8 (Chebyshev fit for t < 14).
inline Vector gelu_erf(Vector x) {
  constexpr float kCoefficients[] = {5.40938600723e-5f,  1.16207929242e-4f, -3.39556463507e-4f,
                                     -9.84276383318e-4f, 2.90442838974e-3f, 6.13219250965e-3f,
                                     -4.62132474669e-2f, 1.23225021749e-1f, -2.06402622071e-1f,
                                     1.21513947742e-1f};
  const Vector t = minimum(broadcast(14.0f), absolute(x));
  const Vector ratio = polynomial((t - broadcast(3.0f)) / (t + broadcast(3.0f)), kCoefficients);
  const Vector tail = exp2(t * t * broadcast(-kLog2E / 2)) * ratio;
  const Vector product = t * tail;
  return select_less(x, zero(), zero() - product, x - product);
}

// The same for a result that is rounded to bf16 or int8 anyway: to a relative 2^-13, without a
// division. log2 Phi(-t) is nearly a parabola: a polynomial of degree 6 for t up to 6, where
// Phi(-t) is 1e-9 and stays, and 2^x one of degree 3 (least squares on Chebyshev nodes, weights
// raised where the error is largest).
inline Vector gelu_erf_rounded(Vector x) {
  constexpr float kExponent[] = {2.29900634e-05f,  -6.11100055e-04f, 7.19556585e-03f,
                                 -5.11853360e-02f, -4.61271912e-01f, -1.15017426f,
                                 -1.00006473f};
  constexpr float kPower[] = {5.51716611e-02f, 2.42611125e-01f, 6.93260968e-01f, 9.99928057e-01f};
  const Vector t = minimum(broadcast(6.0f), absolute(x));
  const Vector exponent = polynomial(t, kExponent);
  const Vector whole = nearest_integer(exponent);
  const Vector tail = times_power_of_two(polynomial(exponent - whole, kPower), whole);
  return maximum(zero(), x) - t * tail;
}

// x sigmoid(2 y) = x/2 (1 + tanh y), y = sqrt(2 / pi) (x + 0.044715 x^3).
inline Vector gelu_tanh(Vector x) {
  constexpr float kTwiceScale = 1.59576912161f;  // 2 sqrt(2 / pi)
  const Vector cubed = multiply_add(x * x, broadcast(0.044715f), broadcast(1.0f)) * x;
  return x * sigmoid(cubed * broadcast(kTwiceScale));
}

inline Vector activate(Activation activation, Vector x) {
  switch (activation) {
    case Activation::gelu_erf:
      return gelu_erf(x);
    case Activation::gelu_tanh:
      return gelu_tanh(x);
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::relu:
      return maximum(zero(), x);
    case Activation::tanh:
      return tanh(x);
    case Activation::none:
      break;
  }
  return x;
}

// rounded: the result goes into bf16 or int8.
inline Vector activate(Activation activation, bool rounded, Vector x) {
  if (rounded && activation == Activation::gelu_erf) return gelu_erf_rounded(x);
  return activate(activation, x);
}
