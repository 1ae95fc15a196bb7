// Every kernel, through the op that launches it, against reference.h in double precision: each type
// of operand, sizes that no tile divides, sequences of one token and of none, several sequences.
//
// Tolerance, relative to 1 + |x|: 1e-5 in f32; 1e-2 where the output is bf16, 2e-3 where it is f16
// (8 times finer, and the inner roundings). Inputs are exact in every type, and so are queries,
// keys and values where attention is tested alone: what is measured is the kernel.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "../ops_support.h"
#include "cuda_test.h"

using namespace terse;
using namespace terse_test;
using terse::cuda_test::for_each_mode;

namespace {

// Of the variants of a case all, or the last where ThreadSanitizer looks on: a thread of the
// emulation then costs half a millisecond, and where kernels wait for each other is the same in all
// of them.
template <class T>
std::vector<T> variants(std::vector<T> all) {
#ifdef EMU_TSAN
  all.erase(all.begin(), all.end() - 1);
#endif
  return all;
}

const std::vector<DType> kTypes = variants<DType>({DType::f32, DType::f16, DType::bf16});

double tolerance(DType dtype) {
  return dtype == DType::f32 ? 1e-5 : dtype == DType::bf16 ? 1e-2 : 2e-3;
}

// call(runner) with the table of each type, and with the judge. out_type: of the result, where it
// is not the operands'.
template <class Call>
void compare_in(DType dtype, DType out_type, const Call& call) {
  const Backend& backend = cuda::backend(dtype);
  CAPTURE(backend.name);
  Runner judged(judge()), runner(backend);
  const Values want = call(judged), got = call(runner);
  REQUIRE(got.size() == want.size());
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - want[i]) / (1 + std::abs(want[i]));
    if (!(error <= worst)) worst = error;
  }
  CHECK(worst <= tolerance(out_type));
  runner.context.backend->finish(runner.context);
}

template <class Call>
void compare(const Call& call) {
  for (const DType dtype : kTypes) compare_in(dtype, dtype, call);
}

// For results that are f32 whatever the operands are.
template <class Call>
void compare_exact(const Call& call) {
  for (const DType dtype : kTypes) compare_in(dtype, DType::f32, call);
}

const Backend& coarse() { return reference::backend(DType::bf16); }

Batch make_batch(const std::vector<std::int32_t>& lengths) {
  Batch batch;
  batch.cu_seqlens = {0};
  for (const std::int32_t length : lengths) {
    for (std::int32_t i = 0; i < length; ++i) {
      batch.positions.push_back(i);
      batch.token_ids.push_back(static_cast<std::int32_t>(batch.token_ids.size() * 7 % 11));
      batch.type_ids.push_back(i % 2);
    }
    batch.cu_seqlens.push_back(batch.cu_seqlens.back() + length);
  }
  return batch;
}

// Whether approximate functions are off by a random number of units: no two runs have the same
// bits.
[[maybe_unused]] bool perturbed() {
#ifdef TERSE_CUDA_EMULATION
  return emu::options().perturb_math;
#else
  return false;
#endif
}

struct AttentionCase {
  AttentionShape shape;
  AttentionRule rule;
  std::vector<std::int32_t> lengths;
  std::vector<std::int32_t> prefix = {};
  bool select = false;
};

// A weight that copies: query, key and value are columns of x, each in an order of its own.
Values copying(std::int64_t rows, std::int64_t width, std::int64_t step) {
  Values weight(static_cast<std::size_t>(rows * width));
  for (std::int64_t row = 0; row < rows; ++row) {
    weight[static_cast<std::size_t>(row * width + (row * step + step) % width)] = 1;
  }
  return weight;
}

Values attend(Runner& runner, const AttentionCase& c, const RotaryTable* rotary,
              double query_scale) {
  const Backend& backend = *runner.context.backend;
  constexpr std::int64_t kHidden = 37;
  Batch batch = make_batch(c.lengths);
  batch.prefix = c.prefix;
  for (std::size_t s = 0; s < c.prefix.size(); ++s) {
    if (c.prefix[s] < 0) continue;
    for (std::int32_t row = batch.cu_seqlens[s]; row < batch.cu_seqlens[s + 1]; ++row) {
      batch.positions[static_cast<std::size_t>(row)] += batch.length(c.prefix[s]);
    }
  }
  RowSelection selection;
  selection.cu_rows = {0};
  for (std::size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s) {
    for (std::int32_t row = std::max(batch.cu_seqlens[s], batch.cu_seqlens[s + 1] - 2);
         row < batch.cu_seqlens[s + 1]; ++row) {
      selection.rows.push_back(row);
    }
    selection.cu_rows.push_back(static_cast<std::int32_t>(selection.rows.size()));
  }
  const std::int64_t query_width = c.shape.heads * c.shape.head_dim;
  const std::int64_t key_width = c.shape.kv_heads * c.shape.head_dim;
  const Stored query(copying(query_width, kHidden, 5), {query_width, kHidden});
  const Stored key(copying(key_width, kHidden, 3), {key_width, kHidden});
  const Stored value(copying(key_width, kHidden, 7), {key_width, kHidden});
  const Linear qkv = runner.linear(
      LinearKind::qkv,
      {{query.view, {}, nullptr}, {key.view, {}, nullptr}, {value.view, {}, nullptr}});
  Generator generator(coarse(), 6);
  const std::int64_t rows = batch.total_tokens();
  const Values x = generator(rows * kHidden);
  const RowSelection* selected = c.select ? &selection : nullptr;
  const AttentionInputs inputs = runner.attention_inputs(batch, c.shape);
  backend.project_qkv(runner.context, batch, runner.operand(x, rows, kHidden), qkv,
                      {query_scale, rotary, selected}, inputs);
  const std::int64_t out_rows = c.select ? static_cast<std::int64_t>(selection.rows.size()) : rows;
  const Operand out = runner.operand(out_rows, query_width);
  backend.attention(runner.context, batch, inputs, c.rule, selected, out);
  return runner.read(out);
}

}  // namespace

TEST_CASE("embed") {
  for_each_mode([] {
    for (const std::int64_t width : variants<std::int64_t>({1, 7, 64, 132})) {
      for (const DType stored :
           variants<DType>({DType::f32, DType::bf16, DType::f16, DType::f64})) {
        CAPTURE(width);
        Generator generator(coarse(), 1);
        const Stored word(generator(11 * width), {11, width}, stored);
        const Stored position(generator(20 * width), {20, width}, stored);
        const Stored type(generator(2 * width), {2, width}, stored);
        const Stored weight(generator(width), {width});
        const Stored bias(generator(width), {width});
        const Batch batch = make_batch({1, 0, 17});
        for (const bool all : {true, false}) {
          compare([&](Runner& runner) {
            const Backend& backend = *runner.context.backend;
            const Table tables[] = {backend.prepare_table(word.view, nullptr),
                                    backend.prepare_table(position.view, nullptr),
                                    backend.prepare_table(type.view, nullptr)};
            const Norm layer = runner.norm(NormKind::layer, weight, bias);
            const Norm rms = runner.norm(NormKind::rms_plus_one, weight, bias);
            const EmbedSpec spec{&tables[0], all ? &tables[1] : nullptr, all ? &tables[2] : nullptr,
                                 all ? 1 : 1.5, all && width > 1 ? &layer : nullptr};
            const Residual x = runner.residual({}, 18, width);
            Operand out = runner.operand(18, width);
            backend.embed(runner.context, batch, spec, x, all ? nullptr : &rms, &out);
            Values both = runner.read(out);
            const Values residual = runner.read(x);
            both.insert(both.end(), residual.begin(), residual.end());
            return both;
          });
        }
      }
    }
  });
}

TEST_CASE("norm") {
  for_each_mode([] {
    for (const std::int64_t width : variants<std::int64_t>({2, 7, 64, 516})) {
      for (const NormKind kind : {NormKind::layer, NormKind::rms, NormKind::rms_plus_one}) {
        CAPTURE(width);
        Generator generator(coarse(), 2);
        const Stored weight(generator(width), {width}, DType::bf16);
        const Stored bias(generator(width), {width});
        Values x = generator(3 * width);
        for (double& value : x) value += 3;  // a mean that must not cancel
        compare([&](Runner& runner) {
          const Norm norm = runner.norm(kind, weight, bias);
          const Operand out = runner.operand(3, width);
          runner.context.backend->norm(runner.context, runner.residual(x, 3, width), &norm, out);
          return runner.read(out);
        });
      }
    }
  });
}

TEST_CASE("linear_add with every choice of norms") {
  for_each_mode([] {
    for (const std::int64_t columns : variants<std::int64_t>({5, 64})) {
      for (const int norms : variants<int>({0, 1, 2, 3, 4, 5, 6, 7})) {
        CAPTURE(norms);
        constexpr std::int64_t kWidth = 24, kRows = 17;
        Generator generator(coarse(), 3);
        const Stored weight(generator.weight(columns, kWidth), {columns, kWidth});
        const Stored bias(generator(columns), {columns});
        const Stored gain(generator(columns), {columns});
        const Values x = generator(kRows * kWidth), y = generator(kRows * columns);
        const auto run = [&](Runner& runner, bool residual) {
          const Linear linear = runner.linear(
              LinearKind::plain, {{weight.view, norms & 1 ? bias.view : TensorView{}, nullptr}});
          const Norm layer = runner.norm(NormKind::layer, gain, bias);
          const Norm rms = runner.norm(NormKind::rms_plus_one, gain, bias);
          const AddSpec spec{0.75, norms & 1 ? &rms : nullptr, norms & 2 ? &layer : nullptr,
                             norms & 4 ? &rms : nullptr};
          const Residual sum = runner.residual(y, kRows, columns);
          Operand out = runner.operand(kRows, columns);
          runner.context.backend->linear_add(runner.context, runner.operand(x, kRows, kWidth),
                                             linear, spec, sum, residual ? nullptr : &out);
          return residual ? runner.read(sum) : runner.read(out);
        };
        compare([&](Runner& runner) { return run(runner, false); });
        compare_exact([&](Runner& runner) { return run(runner, true); });
      }
    }
  });
}

TEST_CASE("linear_activation and linear_gated") {
  for_each_mode([] {
    for (const std::int64_t columns : variants<std::int64_t>({1, 12, 40})) {
      for (const Activation activation :
           variants<Activation>({Activation::none, Activation::gelu_erf, Activation::gelu_tanh,
                                 Activation::silu, Activation::relu, Activation::tanh})) {
        CAPTURE(columns);
        constexpr std::int64_t kWidth = 16, kRows = 19;
        Generator generator(coarse(), 4);
        const Stored weight(generator.weight(columns, kWidth), {columns, kWidth});
        const Stored up(generator.weight(columns, kWidth), {columns, kWidth});
        const Stored bias(generator(columns), {columns});
        const Values x = generator(kRows * kWidth);
        compare([&](Runner& runner) {
          const Linear linear =
              runner.linear(LinearKind::plain, {{weight.view, bias.view, nullptr}});
          const Operand out = runner.operand(kRows, columns);
          runner.context.backend->linear_activation(
              runner.context, runner.operand(x, kRows, kWidth), linear, activation, out);
          return runner.read(out);
        });
        compare([&](Runner& runner) {
          const Linear linear = runner.linear(
              LinearKind::gated, {{weight.view, bias.view, nullptr}, {up.view, {}, nullptr}});
          const Operand out = runner.operand(kRows, columns);
          runner.context.backend->linear_gated(runner.context, runner.operand(x, kRows, kWidth),
                                               linear, activation, out);
          return runner.read(out);
        });
      }
    }
  });
}

#ifdef TERSE_CUDA_EMULATION
// What cuBLASLt has an epilogue for, it does inside the product; else, and where it finds no
// algorithm with one, a kernel follows.
TEST_CASE("a product ends inside cuBLAS or with one kernel, to the same result") {
  emu::Options options = emu::options();
  for (const bool epilogues : variants<bool>({true, false})) {
    options.blas_epilogues = epilogues;
    const emu::ScopedOptions scoped(options);
    for (const Activation activation : variants<Activation>(
             {Activation::none, Activation::gelu_tanh, Activation::gelu_erf, Activation::relu})) {
      for (const bool biased : variants<bool>({false, true})) {
        CAPTURE(epilogues);
        CAPTURE(static_cast<int>(activation));
        CAPTURE(biased);
        constexpr std::int64_t kWidth = 16, kRows = 19, kColumns = 40;
        Generator generator(coarse(), 4);
        const Values x = generator(kRows * kWidth);
        // Two layers of one shape, which share all but their bias.
        const Stored weights[2] = {{generator.weight(kColumns, kWidth), {kColumns, kWidth}},
                                   {generator.weight(kColumns, kWidth), {kColumns, kWidth}}};
        const Stored biases[2] = {{generator(kColumns), {kColumns}},
                                  {generator(kColumns), {kColumns}}};
        compare([&](Runner& runner) {
          Values both;
          for (const int layer : {0, 1, 0}) {
            const Linear linear = runner.linear(
                LinearKind::plain,
                {{weights[layer].view, biased ? biases[layer].view : TensorView{}, nullptr}});
            const Operand in = runner.operand(x, kRows, kWidth);
            const Operand out = runner.operand(kRows, kColumns);
            const bool on_device = runner.context.backend->finish != nullptr;
            if (on_device) runner.context.backend->finish(runner.context);
            const emu::Counters before = emu::counters();
            runner.context.backend->linear_activation(runner.context, in, linear, activation, out);
            if (on_device) {
              runner.context.backend->finish(runner.context);
              const bool plain = activation == Activation::none && !biased;
              const bool inside = epilogues && biased && activation == Activation::none;
              CHECK(emu::counters().epilogues - before.epilogues == (inside ? 1 : 0));
              CHECK(emu::counters().launches - before.launches == (inside || plain ? 0 : 1));
            }
            const Values values = runner.read(out);
            both.insert(both.end(), values.begin(), values.end());
          }
          return both;
        });
      }
    }
  }
}
#endif

TEST_CASE("attention") {
  std::vector<AttentionCase> cases = {
      // Head sizes, lengths of one and none, groups of 1, 2 and 8.
      {{2, 2, 16}, {}, {1}},
      {{1, 1, 32}, {}, {0, 33, 1, 0, 70}},
      {{2, 1, 64}, {}, {65, 3}},
      {{8, 1, 32}, {true}, {20, 1}},
      {{1, 1, 128}, {true}, {40}},
      {{2, 1, 256}, {true}, {35, 1}},
      {{3, 3, 12}, {}, {5, 18}},
      {{2, 2, 40}, {true}, {9, 66}},
      // Windows of 1, a few and more than there are; both directions; with and without a cap.
      {{2, 1, 32}, {true, 1, 0}, {40, 2}},
      {{2, 1, 32}, {false, 1, 0}, {40, 2}},
      {{2, 1, 32}, {true, 9, 5}, {75}},
      {{2, 1, 32}, {false, 9, 5}, {75}},
      {{2, 1, 32}, {true, 1000, 0}, {75}},
      {{2, 1, 32}, {false, 1000, 5}, {30}},
      // Openings that sequences share, and a choice of rows.
      {{4, 2, 32}, {true, 0, 0}, {21, 50, 9, 1}, {-1, 0, 0, 0}},
      {{4, 2, 32}, {true, 20, 5}, {21, 50, 9, 1}, {-1, 0, 0, 0}, true},
      {{2, 2, 64}, {}, {70, 1, 0, 17}, {}, true},
  };
#ifdef EMU_TSAN
  cases = {cases[3], cases[15]};
#endif
  for_each_mode([&] {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      CAPTURE(i);
      compare([&](Runner& runner) { return attend(runner, cases[i], nullptr, 0.125); });
    }
  });
}

#ifndef EMU_TSAN  // the kernels are those of the case above
TEST_CASE("rotary turns, and blocks of keys that end where an opening does") {
  for_each_mode([] {
    const AttentionCase shared{{4, 2, 32}, {true}, {21, 30}, {-1, 0}};
    compare([&](Runner& runner) {
      const RotaryTable rotary = runner.context.backend->prepare_rotary(10000, 32, 100);
      return attend(runner, shared, &rotary, 0.03125);
    });
    // Rows of a sequence have the same bits whether its opening is a sequence or not.
    for (const DType dtype : kTypes) {
      const Backend& backend = cuda::backend(dtype);
      CAPTURE(backend.name);
      Generator generator(coarse(), 9);
      constexpr std::int64_t kHidden = 16, kOpening = 21, kRows = 51;
      const AttentionShape shape{2, 1, 16};
      const Stored weight(generator.weight(64, kHidden), {64, kHidden});
      const auto part = [&](std::int64_t first, std::int64_t count) {
        LinearPart rows{weight.view, {}, nullptr};
        rows.weight.data = static_cast<const float*>(weight.view.data) + first * kHidden;
        rows.weight.shape[0] = count;
        return rows;
      };
      const Values x = generator(kRows * kHidden);
      const auto run = [&](bool apart) {
        Batch batch = make_batch(apart ? std::vector<std::int32_t>{kOpening, kRows - kOpening}
                                       : std::vector<std::int32_t>{kRows});
        for (std::int32_t row = 0; row < kRows; ++row) {
          batch.positions[static_cast<std::size_t>(row)] = row;
        }
        batch.prefix = apart ? std::vector<std::int32_t>{-1, 0} : std::vector<std::int32_t>{-1};
        batch.shareable =
            apart ? std::vector<std::int32_t>{0, 0} : std::vector<std::int32_t>{kOpening};
        Runner runner(backend);
        const RotaryTable rotary = backend.prepare_rotary(10000, shape.head_dim, 100);
        const AttentionInputs inputs = runner.attention_inputs(batch, shape);
        const Linear qkv =
            runner.linear(LinearKind::qkv, {part(0, 32), part(32, 16), part(48, 16)});
        backend.project_qkv(runner.context, batch, runner.operand(x, kRows, kHidden), qkv,
                            {0.25, &rotary, nullptr}, inputs);
        const Operand out = runner.operand(kRows, 32);
        backend.attention(runner.context, batch, inputs, {true, 0, 0}, nullptr, out);
        return runner.read(out);
      };
      if (!perturbed()) CHECK(run(true) == run(false));
    }
  });
}
#endif

#ifndef EMU_TSAN
// Which tiles are taken depends on the mean length; no bit may.
TEST_CASE("a sequence has the same bits in tall tiles and in others") {
  for_each_mode([] {
    for (const std::int64_t head_dim : {32, 64}) {
      CAPTURE(head_dim);
      constexpr std::int32_t kLong = 261;
      const AttentionCase alone{{1, 1, head_dim}, {true, 200, 5}, {kLong}};
      AttentionCase among = alone;
      among.lengths.insert(among.lengths.end(), 4, 1);
      const auto run = [&](Runner& runner, const AttentionCase& c) {
        Values values = attend(runner, c, nullptr, 0.3);
        values.resize(static_cast<std::size_t>(kLong * head_dim));
        return values;
      };
      compare_in(DType::bf16, DType::bf16, [&](Runner& runner) { return run(runner, alone); });
      Runner one(cuda::backend(DType::bf16)), other(cuda::backend(DType::bf16));
      if (!perturbed()) CHECK(run(one, alone) == run(other, among));
    }
  });
}
#endif

TEST_CASE("mean_rows sums in order and copies single rows") {
  for_each_mode([] {
    for (const std::int64_t width : variants<std::int64_t>({3, 64})) {
      Generator generator(coarse(), 7);
      const Values x = generator(20 * width);
      const std::vector<RowSpan> spans = {{3, 4}, {0, 7}, {7, 20}};
      compare_exact([&](Runner& runner) {
        const Residual out = runner.residual({}, 3, width);
        runner.context.backend->mean_rows(runner.context, runner.residual(x, 20, width), spans,
                                          out);
        return runner.read(out);
      });
    }
  });
}

TEST_CASE("heads") {
  for_each_mode([] {
    for (const int options :
         variants<int>({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})) {
      CAPTURE(options);
      constexpr std::int64_t kWidth = 36, kRows = 5;
      Generator generator(coarse(), 8);
      const Stored dense(generator.weight(kWidth, kWidth), {kWidth, kWidth}, DType::bf16);
      const Stored out(generator.weight(9, kWidth), {9, kWidth});
      const Stored gain(generator(kWidth), {kWidth});
      const Values x = generator(kRows * kWidth);
      compare_exact([&](Runner& runner) {
        const Linear first = runner.linear(LinearKind::head, {{dense.view, gain.view, nullptr}});
        const Linear last = runner.linear(LinearKind::head, {{out.view, TensorView{}, nullptr}});
        const Norm norm = runner.norm(NormKind::layer, gain, gain);
        HeadSpec spec;
        spec.norm = options & 8 ? &norm : nullptr;
        spec.dense = options & 1 ? &first : nullptr;
        spec.dense_activation = Activation::tanh;
        spec.out = options & 2 ? &last : nullptr;
        spec.out_activation = options & 8 ? Activation::relu : Activation::none;
        spec.truncate = options & 4 ? 7 : 0;
        spec.softcap = options & 8 ? 30.0f : 0.0f;
        spec.l2_normalize = (options & 4) != 0;
        Values result(static_cast<std::size_t>(kRows * head_columns(spec, kWidth)));
        runner.context.backend->head(runner.context, runner.residual(x, kRows, kWidth), spec,
                                     result);
        return result;
      });
    }
  });
}

TEST_CASE("clear_residual") {
  for_each_mode([] {
    Runner runner(cuda::backend(DType::f32));
    const Residual x = runner.residual(Values(35, 1.0), 5, 7);
    runner.context.backend->clear_residual(runner.context, x);
    CHECK(runner.read(x) == Values(35, 0.0));
  });
}

TEST_CASE("steps that come again are replayed") {
  for_each_mode([] {
    cuda::Queue queue(0);
    const cuda::Memory host(cuda::kHost, 64), device(0, 64);
    for (int round = 0; round < 4; ++round) {
      host.as<float>()[0] = static_cast<float>(round);
      queue.add(cuda::CopyStep{device.data(), host.data(), 32, 1});
      queue.add(cuda::CopyStep{host.as<std::byte>() + 32, device.data(), 32, 0});
      queue.wait();
      CHECK(host.as<float>()[8] == static_cast<float>(round));
    }
    CHECK(queue.num_replays() == 3);
  });
}
