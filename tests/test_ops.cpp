// Every slot of every op table against reference.h in double precision on the same inputs, and the
// bit rules: no row's result depends on the batch, its order or the number of threads.
#include <doctest/doctest.h>

#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "ops_support.h"

using namespace terse;
using namespace terse_test;

namespace {

constexpr std::int64_t kWidths[] = {1, 7, 12, 16, 31, 48, 64, 100, 257};

// call(runner) -> Values with the backend and with the judge.
template <class Call>
void compare(const Backend& backend, double terms, double roundings, const Call& call,
             double inner_roundings = 0) {
  INFO(std::string(backend.name));
  Runner judged(judge());
  Runner runner(backend, 2);
  const Values want = call(judged);
  check_close(backend, call(runner), want, terms, roundings, inner_roundings);
}

// Sequences of the given lengths, with ids below 23 and both token types.
Batch make_batch(const std::vector<std::int32_t>& lengths) {
  Batch batch;
  batch.cu_seqlens = {0};
  for (const std::int32_t length : lengths) {
    for (std::int32_t i = 0; i < length; ++i) {
      batch.positions.push_back(i);
      batch.token_ids.push_back(static_cast<std::int32_t>(batch.token_ids.size() * 7 % 23));
      batch.type_ids.push_back(i % 2);
    }
    batch.cu_seqlens.push_back(batch.cu_seqlens.back() + length);
  }
  return batch;
}

// Weights and biases of queries, keys and values.
struct QkvWeights {
  std::vector<Stored> stored;
  std::vector<LinearPart> parts;

  QkvWeights(Generator& generator, const AttentionShape& shape, std::int64_t hidden, double sharp) {
    const std::int64_t widths[] = {shape.heads, shape.kv_heads, shape.kv_heads};
    for (const std::int64_t heads : widths) {
      const std::int64_t rows = heads * shape.head_dim;
      Values weight = generator.weight(rows, hidden);
      if (stored.size() < 4) {
        for (double& value : weight) value *= sharp;
      }
      stored.emplace_back(weight, Shape{rows, hidden});
      stored.emplace_back(generator(rows), Shape{rows});
    }
    for (std::size_t i = 0; i < stored.size(); i += 2) {
      parts.push_back({stored[i].view, stored[i + 1].view, nullptr});
    }
  }
};

}  // namespace

TEST_CASE("embed gathers, scales and norms") {
  for (const Backend* backend : all_backends()) {
    for (const std::int64_t width : kWidths) {
      for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
        Generator generator(reference::backend(DType::bf16), 1);
        const Stored word(generator(23 * width), {23, width}, dtype, 1);
        const Stored position(generator(50 * width), {50, width}, dtype, 3);
        const Stored type(generator(2 * width), {2, width}, dtype);
        const Stored weight(generator(width), {width});
        const Stored bias(generator(width), {width});
        const Batch batch = make_batch({1, 40, 3});
        compare(*backend, 3 + static_cast<double>(width), 0, [&](Runner& runner) {
          const Table tables[] = {runner.context.backend->prepare_table(word.view, nullptr),
                                  runner.context.backend->prepare_table(position.view, nullptr),
                                  runner.context.backend->prepare_table(type.view, nullptr)};
          const Norm norm = runner.norm(NormKind::layer, weight, bias);
          const EmbedSpec spec{&tables[0], &tables[1], &tables[2], 1.5,
                               width > 1 ? &norm : nullptr};
          const Residual x = runner.residual({}, 44, width);
          Operand out = runner.operand(44, width);
          runner.context.backend->embed(runner.context, batch, spec, x, nullptr, &out);
          return runner.read(x);
        });
      }
    }
  }
}

TEST_CASE("norm of all kinds") {
  for (const Backend* backend : all_backends()) {
    for (const std::int64_t width : kWidths) {
      if (width < 2) continue;
      Generator generator(*backend, 2);
      const Stored weight(generator(width), {width}, DType::bf16, 1);
      const Stored bias(generator(width), {width}, DType::f32, 1);
      Values x = generator(5 * width);
      for (double& value : x) value += 3;  // a mean that must not cancel
      for (const NormKind kind : {NormKind::layer, NormKind::rms, NormKind::rms_plus_one}) {
        compare(*backend, static_cast<double>(width) + 30, 1, [&](Runner& runner) {
          const Norm norm = runner.norm(kind, weight, bias);
          const Operand out = runner.operand(5, width);
          runner.context.backend->norm(runner.context, runner.residual(x, 5, width), &norm, out);
          return runner.read(out);
        });
      }
    }
  }
}

TEST_CASE("linear_activation at odd shapes") {
  for (const Backend* backend : all_backends()) {
    for (const std::int64_t width : kWidths) {
      for (const std::int64_t columns : kWidths) {
        for (const std::int64_t rows : {1, 13, 50}) {
          Generator generator(*backend, 3);
          const Stored weight(generator.weight(columns, width), {columns, width}, DType::f32, 2);
          const Stored bias(generator(columns), {columns});
          const Values x = generator(rows * width);
          compare(
              *backend, static_cast<double>(width) + 4, 1,
              [&](Runner& runner) {
                const Linear linear =
                    runner.linear(LinearKind::plain,
                                  {{weight.view, rows == 13 ? TensorView{} : bias.view, nullptr}});
                const Operand out = runner.operand(rows, columns);
                runner.context.backend->linear_activation(
                    runner.context, runner.operand(x, rows, width), linear, Activation::none, out);
                return runner.read(out);
              },
              product_roundings(*backend));
        }
      }
    }
  }
}

TEST_CASE("activations over their range") {
  for (const Backend* backend : all_backends()) {
    for (const Activation activation : {Activation::gelu_erf, Activation::gelu_tanh,
                                        Activation::silu, Activation::relu, Activation::tanh}) {
      // One input per row, weight 1: the activation alone.
      Values x;
      for (int i = -2000; i <= 2000; ++i) x.push_back(i / 128.0);
      const auto rows = static_cast<std::int64_t>(x.size());
      if (backend->compute != DType::f32) {
        for (double& value : x) value = static_cast<double>(to_f32(to_bf16(float(value))));
      }
      const Stored one({1}, {1, 1});
      const auto run = [&](Runner& runner) {
        const Linear linear = runner.linear(LinearKind::plain, {{one.view, {}, nullptr}});
        const Operand out = runner.operand(rows, 1);
        runner.context.backend->linear_activation(runner.context, runner.operand(x, rows, 1),
                                                  linear, activation, out);
        return runner.read(out);
      };
      INFO(std::string(backend->name));
      CAPTURE(int(activation));
      Runner runner(*backend), judged(judge());
      const Values got = run(runner), want = run(judged);
      for (std::size_t i = 0; i < got.size(); ++i) {
        CAPTURE(x[i]);
        // 4 units in the last place, or 1e-7; then the output is rounded, to multiples of 2^-24 at
        // least where it is f16.
        const double formula = std::max(8 * roundoff(DType::f32) * std::abs(want[i]), 1e-7);
        CHECK(std::abs(got[i] - want[i]) <=
              formula + 1.01 * roundoff(backend->compute) * std::abs(want[i]) +
                  (backend->compute == DType::f16 ? 0x1p-25 : 0));
      }
    }
  }
}

TEST_CASE("linear_gated") {
  for (const Backend* backend : all_backends()) {
    for (const std::int64_t width : {5, 64}) {
      for (const std::int64_t columns : kWidths) {
        for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
          Generator generator(reference::backend(DType::bf16), 4);
          const Stored gate(generator.weight(columns, width), {columns, width}, dtype, 1);
          const Stored up(generator.weight(columns, width), {columns, width}, dtype, 3);
          const Stored bias(generator(columns), {columns});
          const Values x = generator(17 * width);
          compare(
              *backend, static_cast<double>(width) + 30, 1,
              [&](Runner& runner) {
                const Linear linear = runner.linear(
                    LinearKind::gated,
                    {{gate.view, bias.view, nullptr}, {up.view, TensorView{}, nullptr}});
                CHECK(linear.out_features == columns);
                const Operand out = runner.operand(17, columns);
                runner.context.backend->linear_gated(runner.context, runner.operand(x, 17, width),
                                                     linear, Activation::gelu_tanh, out);
                return runner.read(out);
              },
              2 * product_roundings(*backend));
        }
      }
    }
  }
}

TEST_CASE("linear_add with norms before, after and for the next block") {
  for (const Backend* backend : all_backends()) {
    for (const std::int64_t columns : {12, 64, 100}) {
      for (int norms = 0; norms < 8; ++norms) {
        const std::int64_t width = 40, rows = 29;
        Generator generator(*backend, 5);
        const Stored weight(generator.weight(columns, width), {columns, width});
        const Stored bias(generator(columns), {columns});
        const Stored gain(generator(columns), {columns});
        const Values x = generator(rows * width), y = generator(rows * columns);
        for (const bool residual : {true, false}) {
          compare(*backend, static_cast<double>(width + columns), residual ? 0 : 1,
                  [&](Runner& runner) {
                    const Linear linear =
                        runner.linear(LinearKind::plain, {{weight.view, bias.view, nullptr}});
                    const Norm layer = runner.norm(NormKind::layer, gain, bias);
                    const Norm rms = runner.norm(NormKind::rms_plus_one, gain, bias);
                    const AddSpec spec{0.75, norms & 1 ? &rms : nullptr,
                                       norms & 2 ? &layer : nullptr, norms & 4 ? &rms : nullptr};
                    const Residual sum = runner.residual(y, rows, columns);
                    Operand out = runner.operand(rows, columns);
                    runner.context.backend->linear_add(runner.context,
                                                       runner.operand(x, rows, width), linear, spec,
                                                       sum, residual ? nullptr : &out);
                    return residual ? runner.read(sum) : runner.read(out);
                  });
        }
      }
    }
  }
}

TEST_CASE("tables agree with each other on random shapes") {
  std::mt19937 random(10);
  const auto below = [&](std::int64_t most) {
    return 1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most));
  };
  // Among them more rows and more k than any table takes at once.
  for (int shape = 0; shape < 24; ++shape) {
    const std::int64_t rows = below(shape % 8 == 0 ? 450 : 60);
    const std::int64_t width = below(shape % 3 == 0 ? 1300 : 200);
    const std::int64_t columns = below(130);
    CAPTURE(rows);
    CAPTURE(width);
    CAPTURE(columns);
    // Numbers that bf16 holds: what differs is the order of the sums, and denormals.
    Generator generator(reference::backend(DType::bf16), static_cast<unsigned>(shape));
    const Stored weight(generator.weight(columns, width), {columns, width}, DType::bf16, 2);
    const Values x = generator(rows * width), sum = generator(rows * columns);
    Values first;
    for (const Backend* backend : all_backends()) {
      if (backend->isa == Isa::reference) continue;
      INFO(std::string(backend->name));
      Runner runner(*backend, 2);
      const Linear linear = runner.linear(LinearKind::plain, {{weight.view, {}, nullptr}});
      const Residual y = runner.residual(sum, rows, columns);
      backend->linear_add(runner.context, runner.operand(x, rows, width), linear, {0.5}, y,
                          nullptr);
      const Values got = runner.read(y);
      if (first.empty()) first = got;
      check_close(*backend, got, first, 2 * static_cast<double>(width), 0);
    }
  }
}

TEST_CASE("mean_rows sums in order and copies single rows") {
  for (const Backend* backend : all_backends()) {
    const std::int64_t width = 37;
    Generator generator(*backend, 7);
    const Values x = generator(20 * width);
    const std::vector<RowSpan> spans = {{3, 4}, {0, 7}, {7, 20}};
    compare(*backend, 13, 0, [&](Runner& runner) {
      const Residual out = runner.residual({}, 3, width);
      runner.context.backend->mean_rows(runner.context, runner.residual(x, 20, width), spans, out);
      const Values result = runner.read(out);
      for (std::int64_t i = 0; i < width; ++i) {
        CHECK(result[static_cast<std::size_t>(i)] == x[static_cast<std::size_t>(3 * width + i)]);
      }
      return result;
    });
  }
}

TEST_CASE("head with all its steps") {
  for (const Backend* backend : all_backends()) {
    for (int options = 0; options < 16; ++options) {
      const std::int64_t width = 50, rows = 4, columns = options & 2 ? 33 : width;
      Generator generator(*backend, 8);
      const Stored dense(generator.weight(width, width), {width, width}, DType::bf16, 1);
      const Stored out(generator.weight(33, width), {33, width});
      const Stored gain(generator(width), {width});
      const Values x = generator(rows * width);
      HeadSpec spec;
      spec.dense_activation = Activation::tanh;
      spec.truncate = options & 4 ? 20 : 0;
      spec.softcap = options & 8 ? 30.0f : 0.0f;
      spec.l2_normalize = (options & 4) != 0;
      INFO(std::string(backend->name));
      const auto run = [&](Runner& runner) {
        const Linear first = runner.linear(LinearKind::head, {{dense.view, gain.view, nullptr}});
        const Linear last = runner.linear(LinearKind::head, {{out.view, TensorView{}, nullptr}});
        const Norm norm = runner.norm(NormKind::layer, gain, gain);
        HeadSpec with = spec;
        with.norm = &norm;
        with.dense = options & 1 ? &first : nullptr;
        with.out = options & 2 ? &last : nullptr;
        Values result(static_cast<std::size_t>(rows * head_columns(with, width)));
        runner.context.backend->head(runner.context, runner.residual(x, rows, width), with, result);
        return result;
      };
      CHECK(columns > 0);
      Runner judged(judge()), runner(*backend);
      const Values want = run(judged);
      check_close(reference::backend(DType::f32), run(runner), want, 200, 0);
    }
  }
}

namespace {

// A block of a model: everything whose bits must not depend on the batch.
struct Block {
  static constexpr std::int64_t kHidden = 64;
  AttentionShape shape{4, 2, 32};
  AttentionRule rule{true, 0, 0};
  Generator generator;
  QkvWeights qkv;
  Stored word, output, gain, gate, up, down;

  explicit Block(const Backend& backend)
      : generator(backend, 9),
        qkv(generator, shape, kHidden, 1.0),
        word(generator(23 * kHidden), {23, kHidden}),
        output(generator.weight(kHidden, 128), {kHidden, 128}),
        gain(generator(kHidden), {kHidden}),
        gate(generator.weight(96, kHidden), {96, kHidden}),
        up(generator.weight(96, kHidden), {96, kHidden}),
        down(generator.weight(kHidden, 96), {kHidden, 96}) {}

  // The residual stream after the block, (tokens, kHidden).
  Values run(const Backend& backend, const Batch& batch, int threads) const {
    Runner runner(backend, threads);
    Context& context = runner.context;
    const std::int64_t rows = batch.total_tokens();
    const Norm norm = runner.norm(NormKind::rms, gain, gain);
    const Table table = backend.prepare_table(word.view, nullptr);
    const RotaryTable rotary = backend.prepare_rotary(10000, shape.head_dim, 1000);
    const Residual x = runner.residual({}, rows, kHidden);
    Operand normed = runner.operand(rows, kHidden);
    backend.embed(context, batch, {&table, nullptr, nullptr, 1, nullptr}, x, &norm, &normed);
    const AttentionInputs inputs = runner.attention_inputs(batch, shape);
    backend.project_qkv(context, batch, normed, runner.linear(LinearKind::qkv, qkv.parts),
                        {0.177, &rotary, nullptr}, inputs);
    const Operand attended = runner.operand(rows, 128, backend.sensitive);
    backend.attention(context, batch, inputs, rule, nullptr, attended);
    backend.linear_add(context, attended,
                       runner.linear(LinearKind::plain, {{output.view, {}, nullptr}}),
                       {1, nullptr, nullptr, &norm}, x, &normed);
    const Operand wide = runner.operand(rows, 96);
    backend.linear_gated(
        context, normed,
        runner.linear(LinearKind::gated, {{gate.view, {}, nullptr}, {up.view, {}, nullptr}}),
        Activation::silu, wide);
    backend.linear_add(context, wide, runner.linear(LinearKind::plain, {{down.view, {}, nullptr}}),
                       {}, x, nullptr);
    return runner.read(x);
  }
};

// Rows of a sequence in a result.
Values rows_of(const Values& values, const Batch& batch, std::size_t sequence) {
  const auto begin = batch.cu_seqlens[sequence] * Block::kHidden;
  const auto end = batch.cu_seqlens[sequence + 1] * Block::kHidden;
  return {values.begin() + begin, values.begin() + end};
}

// Some sequences of a batch, in the given order.
Batch pick(const Batch& batch, const std::vector<std::size_t>& sequences) {
  Batch picked;
  picked.cu_seqlens = {0};
  for (const std::size_t s : sequences) {
    for (auto row = static_cast<std::size_t>(batch.cu_seqlens[s]);
         row < static_cast<std::size_t>(batch.cu_seqlens[s + 1]); ++row) {
      picked.token_ids.push_back(batch.token_ids[row]);
      picked.positions.push_back(batch.positions[row]);
    }
    picked.cu_seqlens.push_back(static_cast<std::int32_t>(picked.positions.size()));
    if (!batch.shareable.empty()) picked.shareable.push_back(batch.shareable[s]);
  }
  return picked;
}

}  // namespace

TEST_CASE("a sequence's bits do not depend on its batch, the order or the threads") {
  for (const Backend* backend : all_backends_and_int8()) {
    INFO(std::string(backend->name));
    for (const bool causal : {true, false}) {
      Block block(*backend);
      block.rule = {causal, causal ? 0 : 50, causal ? 50.0f : 0.0f};
      Batch batch = make_batch({130, 1, 17, 200, 64, 3});
      batch.type_ids.clear();
      const Values together = block.run(*backend, batch, 1);
      for (std::size_t s = 0; s < 6; ++s) {
        const Values alone = block.run(*backend, pick(batch, {s}), 1);
        CHECK(alone == rows_of(together, batch, s));
      }
      const std::vector<std::size_t> order = {4, 1, 5, 3, 0, 2};
      const Batch permuted = pick(batch, order);
      const Values shuffled = block.run(*backend, permuted, 1);
      for (std::size_t s = 0; s < 6; ++s) {
        CHECK(rows_of(shuffled, permuted, s) == rows_of(together, batch, order[s]));
      }
      for (int threads = 2; threads <= 5; ++threads) {
        CHECK(block.run(*backend, batch, threads) == together);
      }
    }
  }
}

TEST_CASE("rounding modes of the caller change no bit of the fast tables") {
  for (const Backend* backend : all_backends_and_int8()) {
    if (backend->isa == Isa::reference) continue;  // one scope around the pass keeps theirs
    INFO(std::string(backend->name));
    const Block block(*backend);
    Batch batch = make_batch({40, 7});
    batch.type_ids.clear();
    const Values want = block.run(*backend, batch, 1);
    std::fesetround(FE_UPWARD);
    const Values got = block.run(*backend, batch, 1);
    CHECK(std::fegetround() == FE_UPWARD);
    std::fesetround(FE_TONEAREST);
    const bool same = got == want;
    CHECK(same);
  }
}

TEST_CASE("a shared prefix changes no bit") {
  for (const Backend* backend : all_backends_and_int8()) {
    INFO(std::string(backend->name));
    for (const std::int32_t opening : {1, 37, 128, 150}) {
      for (const std::int32_t window : {0, 60}) {
        Block block(*backend);
        block.rule = {true, window, 0};
        const std::vector<std::int32_t> rest = {1, 90, 200};
        // Shared: the opening, then the rests that name it as their prefix.
        Batch shared = make_batch({opening, rest[0], rest[1], rest[2]});
        shared.type_ids.clear();
        shared.prefix = {-1, 0, 0, 0};
        shared.shareable = {opening, 0, 0, 0};
        for (std::int32_t row = opening; row < shared.cu_seqlens.back(); ++row) {
          shared.positions[static_cast<std::size_t>(row)] += opening;
        }
        const Values together = block.run(*backend, shared, 2);
        for (std::size_t s = 0; s < rest.size(); ++s) {
          Batch single = make_batch({opening + rest[s]});
          single.type_ids.clear();
          single.shareable = {opening};
          const auto begin = shared.cu_seqlens[s + 1];
          std::copy(shared.token_ids.begin(), shared.token_ids.begin() + opening,
                    single.token_ids.begin());
          std::copy(shared.token_ids.begin() + begin, shared.token_ids.begin() + begin + rest[s],
                    single.token_ids.begin() + opening);
          const Values alone = block.run(*backend, single, 1);
          const Values tail(alone.begin() + opening * Block::kHidden, alone.end());
          CHECK(tail == rows_of(together, shared, s + 1));
        }
      }
    }
  }
}

#include "test_ops_attention.inl"
