// int8 products of every table: quantising against its definition, products against the same
// quantised numbers multiplied in f64, what must not be lost on the way (NaN, infinity, zeros), and
// equal bits from table to table.
#include <doctest/doctest.h>

#include <limits>

#include "ops_support.h"
#include "terse/error.h"

using namespace terse;
using namespace terse_test;

namespace {

// Widths around a word of four, a cache line, and the piece of k that is widened at a time.
constexpr std::int64_t kWidths[] = {1, 3, 4, 5, 16, 31, 63, 64, 65, 100, 512, 513, 1030};
constexpr std::int64_t kColumns[] = {1, 16, 17, 31, 32, 48, 100};

// Rows by one of the definitions: Element int16_t is that of operands, int8_t that of weights.
template <class Element>
struct Quantized {
  std::vector<Element> elements;  // (rows, width)
  std::vector<float> scales;      // (rows)
  std::int64_t width;

  Quantized(const Values& values, std::int64_t row_width) : width(row_width) {
    elements.resize(values.size());
    const std::vector<float> singles(values.begin(), values.end());
    for (std::size_t at = 0; at < values.size(); at += static_cast<std::size_t>(width)) {
      const float* row = singles.data() + at;
      if constexpr (std::is_same_v<Element, std::int16_t>) {
        scales.push_back(reference::quantize_operand(row, width, elements.data() + at));
      } else {
        scales.push_back(reference::quantize(row, width, elements.data() + at));
      }
    }
  }
  double at(std::int64_t row, std::int64_t k) const {
    return static_cast<double>(scales[static_cast<std::size_t>(row)]) *
           elements[static_cast<std::size_t>(row * width + k)];
  }
};

// A linear layer's numbers, x of it, and a residual to add to.
struct Case {
  std::int64_t rows, width, columns;
  Values x, weight, bias, residual;

  Case(std::int64_t num_rows, std::int64_t in_features, std::int64_t out_features, unsigned seed)
      : rows(num_rows), width(in_features), columns(out_features) {
    Generator generator(reference::backend(DType::f32), seed);
    x = generator(rows * width);
    weight = generator.weight(columns, width);
    bias = generator(columns);
    residual = generator(rows * columns);
  }

  // x W^T + b of the quantised numbers, in f64, and how large its terms are together.
  struct Exact {
    Values y, size;
  };
  Exact exact() const {
    const Quantized<std::int16_t> a(x, width);
    const Quantized<std::int8_t> w(weight, width);
    Exact result;
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column) {
        double sum = 0;
        for (std::int64_t k = 0; k < width; ++k) sum += a.at(row, k) * w.at(column, k);
        const double b = bias[static_cast<std::size_t>(column)];
        result.y.push_back(sum + b);
        result.size.push_back(std::abs(sum) + std::abs(b));
      }
    }
    return result;
  }

  // The residual after linear_add.
  Values add(const Backend& backend, int threads = 1) const {
    Runner runner(backend, threads);
    const Stored w(weight, {columns, width}, DType::f32, 3), b(bias, {columns}, DType::f32, 1);
    const Linear linear = runner.linear(LinearKind::plain, {{w.view, b.view, nullptr}});
    CHECK(linear.compute == DType::i8);
    const Residual sum = runner.residual(residual, rows, columns);
    backend.linear_add(runner.context, runner.operand(x, rows, width), linear, {}, sum, nullptr);
    return runner.read(sum);
  }
};

// got is an int8 operand (rows, width) of what should be `want`: off by half a step of the row's
// scale, and by what f32 arithmetic before it may have moved (steps of 2^-24 of the largest).
void check_quantized(const Values& got, const Values& want, std::int64_t width, double roundings) {
  REQUIRE(got.size() == want.size());
  for (std::size_t begin = 0; begin < got.size(); begin += static_cast<std::size_t>(width)) {
    double least = 0, most = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      least = std::min(least, want[begin + static_cast<std::size_t>(i)]);
      most = std::max(most, want[begin + static_cast<std::size_t>(i)]);
    }
    double worst = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      const std::size_t at = begin + static_cast<std::size_t>(i);
      const double error = std::abs(got[at] - want[at]);
      if (!(error <= worst)) worst = error;
    }
    CHECK(worst <=
          (most - least) / 254 / 2 + roundings * roundoff(DType::f32) * std::max(most, -least));
  }
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("a row of a weight is quantised by its largest magnitude, to nearest even") {
  std::int8_t q[6];
  const float row[] = {127, -127, 2.5f, 3.5f, -0.5f, 0.51f};
  CHECK(reference::quantize(row, 6, q) == 1.0f);
  CHECK(std::vector<int>(q, q + 6) == std::vector<int>{127, -127, 2, 4, 0, 1});
  const float zeros[] = {0, -0.0f, 0};
  CHECK(reference::quantize(zeros, 3, q) == 0.0f);
  CHECK(std::vector<int>(q, q + 3) == std::vector<int>{0, 0, 0});
  const float tiny[] = {1e-38f, -1e-44f};
  CHECK(reference::quantize(tiny, 2, q) == 0.0f);
  const float broken[] = {1, std::numeric_limits<float>::infinity()};
  CHECK(std::isnan(reference::quantize(broken, 2, q)));
}

TEST_CASE("a row of an operand is quantised by its range, to nearest even, zero to zero") {
  std::int16_t q[5];
  const auto quantized = [&](const std::vector<float>& row) {
    const float scale =
        reference::quantize_operand(row.data(), static_cast<std::int64_t>(row.size()), q);
    return std::pair(scale, std::vector<int>(q, q + row.size()));
  };
  CHECK(quantized({127, -127, 2.5f, 3.5f, 0}) == std::pair(1.0f, std::vector{127, -127, 2, 4, 0}));
  CHECK(quantized({254, 0, 7.5f}) == std::pair(1.0f, std::vector{254, 0, 8}));
  CHECK(quantized({254, 100}) == std::pair(1.0f, std::vector{254, 100}));
  CHECK(quantized({-1, 253}) == std::pair(1.0f, std::vector{-1, 253}));
  // The farthest that rounding puts the ends apart.
  CHECK(quantized({-127.5f, 126.5f + 127.5f - 127.5f}).second == std::vector{-128, 126});
  CHECK(quantized({0, -0.0f}) == std::pair(0.0f, std::vector{0, 0}));
  CHECK(quantized({1e-38f, -1e-44f}) == std::pair(0.0f, std::vector{0, 0}));
  CHECK(std::isnan(quantized({1, -std::numeric_limits<float>::infinity()}).first));
  // All that a float holds, though max - min is not one.
  constexpr float kMost = std::numeric_limits<float>::max();
  CHECK(quantized({kMost, -kMost}).second == std::vector{127, -127});
}

TEST_CASE("int8 operands of every table are the definition's, bit for bit") {
  for (const Backend* backend : int8_backends()) {
    CAPTURE(backend->name);
    CHECK(backend->compute == DType::i8);
    for (const std::int64_t width : kWidths) {
      Generator generator(reference::backend(DType::f32), 1);
      Values x = generator(9 * width);
      for (std::int64_t i = 0; i < width; ++i) x[static_cast<std::size_t>(i)] = 0;
      for (std::int64_t i = width; i < 2 * width; ++i) x[static_cast<std::size_t>(i)] *= 1e-30;
      for (std::int64_t i = 2 * width; i < 3 * width; ++i) x[static_cast<std::size_t>(i)] *= 1e30;
      // Of one sign, and nearly.
      for (std::int64_t i = 3 * width; i < 5 * width; ++i) {
        double& value = x[static_cast<std::size_t>(i)];
        value = i < 4 * width ? -std::abs(value) : std::abs(value) - 0.1;
      }
      for (double& value : x) value = static_cast<float>(value);
      Runner runner(*backend);
      const Values got = runner.read(runner.operand(x, 9, width));
      const Quantized<std::int16_t> want(x, width);
      std::size_t wrong = 0;
      for (std::int64_t row = 0; row < 9; ++row) {
        for (std::int64_t k = 0; k < width; ++k) {
          wrong += got[static_cast<std::size_t>(row * width + k)] != want.at(row, k);
        }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("int8 products are exact sums, at odd shapes, in every table the same bits") {
  for (const std::int64_t width : kWidths) {
    for (const std::int64_t columns : kColumns) {
      for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 50}) {
        if (rows > 15 && width > 100) continue;
        CAPTURE(width);
        CAPTURE(columns);
        CAPTURE(rows);
        const Case c(rows, width, columns, 2);
        const Case::Exact exact = c.exact();
        const Values reference = c.add(reference::backend(DType::i8));
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < reference.size(); ++i) {
          // Rounded: the sum, the scales' product, theirs, the bias added, the residual added.
          const double size = exact.size[i] + std::abs(c.residual[i]);
          const double error = std::abs(reference[i] - (exact.y[i] + c.residual[i]));
          wrong += !(error <= 5 * roundoff(DType::f32) * size);
        }
        CHECK(wrong == 0);
        for (const Backend* backend : int8_backends()) {
          CAPTURE(backend->name);
          CHECK(c.add(*backend, rows > 15 ? 3 : 1) == reference);
        }
      }
    }
  }
}

TEST_CASE("the widest rows of the largest numbers do not overflow") {
  constexpr std::int64_t kMost = reference::kInt8MostWidth;
  for (const double sign : {1.0, -1.0}) {
    Case c(2, kMost, 17, 3);
    std::fill(c.x.begin(), c.x.end(), 3.0);
    std::fill(c.weight.begin(), c.weight.end(), sign * 0.25);
    const double y = sign * 0.75 * static_cast<double>(kMost);
    for (const Backend* backend : int8_backends()) {
      CAPTURE(backend->name);
      const Values got = c.add(*backend);
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double want = y + c.bias[i % 17] + c.residual[i];
        CHECK(std::abs(got[i] - want) <= 5 * roundoff(DType::f32) * std::abs(y));
      }
    }
  }
  const Values row(static_cast<std::size_t>(kMost + 1), 1.0);
  const Stored wide(row, {1, kMost + 1});
  for (const Backend* backend : int8_backends()) {
    Runner runner(*backend);
    CHECK_THROWS_AS(runner.linear(LinearKind::plain, {{wide.view, {}, nullptr}}), Error);
  }
}

TEST_CASE("weights of any stored type are quantised as f32") {
  for (const Backend* backend : int8_backends()) {
    CAPTURE(backend->name);
    Generator generator(reference::backend(DType::bf16), 4);
    const Values weight = generator.weight(33, 70);
    const Values x = generator(5 * 70);
    Values first;
    for (const DType dtype : {DType::f32, DType::f64, DType::f16, DType::bf16}) {
      Runner runner(*backend);
      const Stored w(weight, {33, 70}, dtype, 1);
      const Linear linear = runner.linear(LinearKind::plain, {{w.view, {}, nullptr}});
      const Residual y = runner.residual(Values(5 * 33, 0.0), 5, 33);
      backend->linear_add(runner.context, runner.operand(x, 5, 70), linear, {}, y, nullptr);
      if (first.empty()) first = runner.read(y);
      CHECK(runner.read(y) == first);
    }
  }
}

TEST_CASE("activations leave int8 rows scaled by all of their columns") {
  for (const Backend* backend : int8_backends()) {
    CAPTURE(backend->name);
    for (const std::int64_t columns : {1, 7, 16, 33, 64, 100}) {
      for (const bool gated : {false, true}) {
        CAPTURE(columns);
        const Case c(23, 70, 2 * columns, 5);
        const Case::Exact exact = c.exact();
        Runner runner(*backend, 2);
        const auto half = static_cast<std::ptrdiff_t>(columns * 70);
        const Stored gate({c.weight.begin(), c.weight.begin() + half}, {columns, 70});
        const Stored up({c.weight.begin() + half, c.weight.end()}, {columns, 70});
        const Stored gate_bias({c.bias.begin(), c.bias.begin() + columns}, {columns});
        const Stored up_bias({c.bias.begin() + columns, c.bias.end()}, {columns});
        const Operand x = runner.operand(c.x, 23, 70);
        const Operand out = runner.operand(23, columns);
        Values want;
        for (std::int64_t row = 0; row < 23; ++row) {
          for (std::int64_t i = 0; i < columns; ++i) {
            const auto at = static_cast<std::size_t>(row * 2 * columns + i);
            const double y = reference::activate(Activation::silu, exact.y[at]);
            want.push_back(gated ? y * exact.y[at + static_cast<std::size_t>(columns)] : y);
          }
        }
        if (gated) {
          const Linear linear = runner.linear(
              LinearKind::gated,
              {{gate.view, gate_bias.view, nullptr}, {up.view, up_bias.view, nullptr}});
          backend->linear_gated(runner.context, x, linear, Activation::silu, out);
        } else {
          const Linear linear =
              runner.linear(LinearKind::plain, {{gate.view, gate_bias.view, nullptr}});
          backend->linear_activation(runner.context, x, linear, Activation::silu, out);
        }
        // silu loses no digits; its argument is a sum some times larger than it.
        check_quantized(runner.read(out), want, columns, 200);
      }
    }
  }
}

TEST_CASE("a norm leaves an int8 row; so does the norm after a sum") {
  for (const Backend* backend : int8_backends()) {
    CAPTURE(backend->name);
    for (const std::int64_t width : {7, 64, 100}) {
      const Case c(9, width, width, 6);
      const Stored gain(c.bias, {width});
      const auto run = [&](Runner& runner, DType dtype, bool after_sum) {
        const Norm norm = runner.norm(NormKind::layer, gain, gain);
        Operand out = runner.operand(9, width, dtype);
        const Backend& table = *runner.context.backend;
        if (!after_sum) {
          table.norm(runner.context, runner.residual(c.residual, 9, width), &norm, out);
          return runner.read(out);
        }
        const Stored w(c.weight, {width, width});
        const Linear linear = runner.linear(LinearKind::plain, {{w.view, {}, nullptr}});
        table.linear_add(runner.context, runner.operand(c.x, 9, width), linear,
                         {1, nullptr, nullptr, &norm}, runner.residual(c.residual, 9, width), &out);
        return runner.read(out);
      };
      Runner runner(*backend), judged(judge());
      check_quantized(run(runner, DType::i8, false), run(judged, DType::f64, false), width, 200);
      // The same sum as an operand of the sensitive type, itself rounded to that.
      const Values plain = run(runner, backend->sensitive, true);
      const double roundings = backend->sensitive == DType::bf16 ? 0x1p16 : 200;
      check_quantized(run(runner, DType::i8, true), plain, width, roundings);
    }
  }
}

TEST_CASE("what is not finite reaches every product of its row or column, and nothing else") {
  for (const Backend* backend : int8_backends()) {
    CAPTURE(backend->name);
    for (const double broken : {kNan, -kNan, kInfinity, -kInfinity}) {
      for (const std::int64_t width : {5, 64, 600}) {
        Case c(8, width, 33, 7);
        c.x[static_cast<std::size_t>(3 * width + width - 1)] = broken;
        Values got = c.add(*backend);
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < got.size(); ++i)
          wrong += std::isfinite(got[i]) == (i / 33 == 3);
        CHECK(wrong == 0);

        c = Case(8, width, 33, 7);
        c.weight[static_cast<std::size_t>(20 * width)] = broken;
        got = c.add(*backend);
        wrong = 0;
        for (std::size_t i = 0; i < got.size(); ++i) {
          wrong += std::isfinite(got[i]) == (i % 33 == 20);
        }
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("what is not finite leaves an activation too") {
  for (const Backend* backend : int8_backends()) {
    CAPTURE(backend->name);
    Case c(4, 64, 64, 8);
    c.bias[63] = kNan;
    Runner runner(*backend);
    const Stored w(c.weight, {64, 64}), b(c.bias, {64});
    const Linear linear = runner.linear(LinearKind::plain, {{w.view, b.view, nullptr}});
    const Operand out = runner.operand(4, 64);
    backend->linear_activation(runner.context, runner.operand(c.x, 4, 64), linear, Activation::silu,
                               out);
    for (const double value : runner.read(out)) CHECK(!std::isfinite(value));
  }
}

TEST_CASE("rows of zeros give the bias") {
  for (const Backend* backend : int8_backends()) {
    CAPTURE(backend->name);
    Case c(3, 100, 20, 9);
    std::fill(c.x.begin() + 100, c.x.begin() + 200, 0.0);
    std::fill(c.residual.begin(), c.residual.end(), 0.0);
    const Values got = c.add(*backend);
    for (std::size_t i = 0; i < 20; ++i) CHECK(got[20 + i] == c.bias[i]);
  }
}

TEST_CASE("rows of another type are quantised where they are read") {
  for (const Backend* backend : int8_backends()) {
    CAPTURE(backend->name);
    const Case c(29, 130, 40, 10);
    Runner runner(*backend, 2);
    const Stored w(c.weight, {40, 130});
    const Linear linear = runner.linear(LinearKind::plain, {{w.view, {}, nullptr}});
    const Operand plain = runner.operand(29, 130, backend->sensitive);
    backend->norm(runner.context, runner.residual(c.x, 29, 130), nullptr, plain);
    const Residual got = runner.residual(c.residual, 29, 40);
    const Residual want = runner.residual(c.residual, 29, 40);
    backend->linear_add(runner.context, plain, linear, {}, got, nullptr);
    // The same rows, rounded to that type, as an int8 operand.
    backend->linear_add(runner.context, runner.operand(runner.read(plain), 29, 130), linear, {},
                        want, nullptr);
    CHECK(runner.read(got) == runner.read(want));
  }
}

TEST_CASE("selected queries have the bits that they have among all") {
  for (const Backend* backend : int8_backends()) {
    CAPTURE(backend->name);
    const AttentionShape shape{2, 2, 32};
    const Case c(60, 48, 192, 11);
    Batch batch;
    batch.cu_seqlens = {0, 21, 22, 60};
    for (int i = 0; i < 60; ++i) batch.positions.push_back(i);
    RowSelection selection;
    selection.rows = {20, 21, 30, 59};
    selection.cu_rows = {0, 1, 2, 4};
    const auto run = [&](const RowSelection* selected) {
      Runner runner(*backend);
      const Stored w(c.weight, {192, 48}), b(c.bias, {192});
      const Linear qkv = runner.linear(LinearKind::qkv, {{w.view, b.view, nullptr}});
      const AttentionInputs inputs = runner.attention_inputs(batch, shape);
      backend->project_qkv(runner.context, batch, runner.operand(c.x, 60, 48), qkv,
                           {0.2, nullptr, selected}, inputs);
      const Operand out = runner.operand(selected == nullptr ? 60 : 4, 64, backend->sensitive);
      backend->attention(runner.context, batch, inputs, {}, selected, out);
      return runner.read(out);
    };
    const Values all = run(nullptr), some = run(&selection);
    for (std::size_t i = 0; i < 4; ++i) {
      for (std::size_t k = 0; k < 64; ++k) {
        CHECK(some[i * 64 + k] == all[static_cast<std::size_t>(selection.rows[i]) * 64 + k]);
      }
    }
  }
}
