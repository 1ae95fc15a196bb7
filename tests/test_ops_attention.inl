// Attention's part of test_ops.cpp: project_qkv, attention and attend_selected. Included there, so
// that the tables, which take long to compile, are compiled once.

namespace {

// What an attention test varies.
struct AttentionCase {
  AttentionShape shape;
  AttentionRule rule;
  std::vector<std::int32_t> lengths;
  std::vector<std::int32_t> prefix = {};
  std::vector<std::int32_t> shareable = {};
  bool select = false;
  bool rotary = true;
};

RowSelection last_rows(const Batch& batch) {
  RowSelection selection;
  selection.cu_rows = {0};
  for (std::int64_t s = 0; s < batch.size(); ++s) {
    // Two rows of every second sequence, one of the others.
    const std::int32_t end = batch.cu_seqlens[static_cast<std::size_t>(s + 1)];
    if (s % 2 == 0 && batch.length(s) > 1) selection.rows.push_back(end - 2);
    selection.rows.push_back(end - 1);
    selection.cu_rows.push_back(static_cast<std::int32_t>(selection.rows.size()));
  }
  return selection;
}

// project_qkv and attention of a case; the operand's rows come from x.
Values attend(Runner& runner, const AttentionCase& c, const Batch& batch, std::int64_t hidden,
              const Values& x, const std::vector<LinearPart>& parts) {
  const Backend& backend = *runner.context.backend;
  const Linear qkv = runner.linear(LinearKind::qkv, parts);
  const RotaryTable rotary = backend.prepare_rotary(10000, c.shape.head_dim, 1000);
  const RowSelection selection = last_rows(batch);
  ProjectSpec spec;
  spec.query_scale = 1 / std::sqrt(static_cast<double>(c.shape.head_dim));
  spec.rotary = c.rotary ? &rotary : nullptr;
  spec.selection = c.select ? &selection : nullptr;
  const AttentionInputs inputs = runner.attention_inputs(batch, c.shape);
  const std::int64_t rows = batch.total_tokens();
  backend.project_qkv(runner.context, batch, runner.operand(x, rows, hidden), qkv, spec, inputs);
  const std::int64_t out_rows = c.select ? static_cast<std::int64_t>(selection.rows.size()) : rows;
  const Operand out = runner.operand(out_rows, c.shape.heads * c.shape.head_dim, backend.sensitive);
  backend.attention(runner.context, batch, inputs, c.rule, spec.selection, out);
  return runner.read(out);
}

Batch batch_of(const AttentionCase& c) {
  Batch batch = make_batch(c.lengths);
  batch.prefix = c.prefix;
  batch.shareable = c.shareable;
  for (std::size_t s = 0; s < c.prefix.size(); ++s) {
    if (c.prefix[s] < 0) continue;
    for (std::int32_t row = batch.cu_seqlens[s]; row < batch.cu_seqlens[s + 1]; ++row) {
      batch.positions[static_cast<std::size_t>(row)] += batch.length(c.prefix[s]);
    }
  }
  return batch;
}

// Selected rows of each sequence: so many, from its first on.
struct SelectedCase {
  AttentionShape shape;
  std::int64_t hidden = 0;
  std::vector<std::int32_t> lengths;
  std::vector<std::int32_t> selected = {};  // of each sequence; one if empty
};

RowSelection first_rows(const SelectedCase& c, const Batch& batch) {
  RowSelection selection;
  selection.cu_rows = {0};
  for (std::size_t s = 0; s < c.lengths.size(); ++s) {
    const std::int32_t count = c.selected.empty() ? 1 : c.selected[s];
    for (std::int32_t i = 0; i < count; ++i) {
      selection.rows.push_back(batch.cu_seqlens[s] + i);
    }
    selection.cu_rows.push_back(static_cast<std::int32_t>(selection.rows.size()));
  }
  return selection;
}

// What the selected rows attend to; x: the operand's rows.
Values attend_selected(Runner& runner, const SelectedCase& c, const Values& x,
                       const std::vector<LinearPart>& parts) {
  const Backend& backend = *runner.context.backend;
  const Batch batch = make_batch(c.lengths);
  const RowSelection selection = first_rows(c, batch);
  const Linear qkv = backend.prepare_linear(LinearKind::qkv, parts, backend.sensitive);
  Operand operand = runner.operand(batch.total_tokens(), c.hidden, backend.sensitive);
  backend.norm(runner.context, runner.residual(x, operand.rows, c.hidden), nullptr, operand);
  const AttentionInputs inputs = runner.attention_inputs(batch, c.shape);
  const auto rows = static_cast<std::int64_t>(selection.rows.size());
  const Operand out = runner.operand(rows, c.shape.heads * c.shape.head_dim, backend.sensitive);
  const ProjectSpec spec{1 / std::sqrt(static_cast<double>(c.shape.head_dim)), nullptr, &selection};
  if (attends_selected(backend, c.shape)) {
    backend.attend_selected(runner.context, batch, operand, qkv, spec, inputs, out);
  } else {
    backend.project_qkv(runner.context, batch, operand, qkv, spec, inputs);
    backend.attention(runner.context, batch, inputs, AttentionRule{}, &selection, out);
  }
  return runner.read(out);
}

std::vector<const Backend*> selecting_backends(const AttentionShape& shape) {
  std::vector<const Backend*> found;
  for (const Backend* backend : all_backends_and_int8()) {
    if (attends_selected(*backend, shape)) found.push_back(backend);
  }
  return found;
}

std::int64_t tokens_of(const SelectedCase& c) { return make_batch(c.lengths).total_tokens(); }

const std::vector<SelectedCase>& selected_cases() {
  static const std::vector<SelectedCase> all = {
      {{2, 2, 64}, 48, {1}},
      {{2, 2, 64}, 64, {300, 1, 17, 128, 129, 1}},
      {{12, 12, 64}, 96, {40, 257}, {1, 2}},
      {{3, 3, 16}, 49, {5, 40, 33}},
      {{4, 2, 32}, 100, {70, 200, 3}, {3, 0, 1}},
      {{1, 1, 128}, 17, {131, 9}},
      {{40, 40, 16}, 64, {30, 150}},
      {{2, 2, 16}, 32, std::vector<std::int32_t>(37, 5)},
  };
  return all;
}

}  // namespace

TEST_CASE("project_qkv and attention") {
  const std::vector<AttentionCase> cases = {
      {{2, 2, 64}, {}, {1}},
      {{2, 2, 64}, {}, {300, 1, 17, 128, 129, 1}},
      {{3, 3, 12}, {}, {5, 40, 33}, {}, {}, false, false},
      {{4, 1, 16}, {true, 0, 0}, {50, 1, 131}},
      {{4, 2, 32}, {true, 16, 50}, {70, 200, 3}},
      {{4, 2, 32}, {false, 9, 0}, {70, 200, 3}},
      {{8, 1, 256}, {true, 0, 0}, {20, 140}},
      {{2, 1, 128}, {true, 40, 30}, {150, 31}},
      {{4, 2, 32}, {true, 0, 0}, {37, 150, 9, 1}, {-1, 0, 0, 0}, {}},
      {{4, 2, 32}, {true, 20, 0}, {37, 150, 9, 1}, {-1, 0, 0, 0}, {37, 0, 0, 0}, true},
      {{4, 2, 32}, {true, 0, 50}, {187, 46, 38}, {}, {37, 37, 37}, true},
      {{2, 2, 64}, {}, {300, 1, 17, 128, 129, 1}, {}, {}, true},
      {{3, 3, 12}, {}, {5, 40, 33}, {}, {}, true},
  };
  for (const Backend* backend : all_backends()) {
    for (const AttentionCase& c : cases) {
      const std::int64_t hidden = 48;
      CAPTURE(c.shape.head_dim);
      CAPTURE(c.lengths.size());
      Generator generator(*backend, 6);
      const Batch batch = batch_of(c);
      const QkvWeights weights(generator, c.shape, hidden, 1.0);
      const Values x = generator(batch.total_tokens() * hidden);
      // Rounded: queries and keys (which move every score), values, probabilities, the output.
      const double scores_rounded = 8;
      compare(*backend, 200, 3 + scores_rounded,
              [&](Runner& runner) { return attend(runner, c, batch, hidden, x, weights.parts); });
    }
  }
}

TEST_CASE("a NaN in a query, key or value reaches the output of attention") {
  const AttentionCase c = {{2, 2, 64}, {}, {5, 150}};
  const Batch batch = batch_of(c);
  const std::int64_t hidden = 48;
  const std::int64_t width = c.shape.heads * c.shape.head_dim;
  for (const Backend* backend : all_backends_and_int8()) {
    CAPTURE(backend->name);
    for (std::size_t part = 0; part < 3; ++part) {
      CAPTURE(part);
      Generator generator(*backend, 8);
      QkvWeights weights(generator, c.shape, hidden, 1.0);
      // The first bias of query, key or value: seen by every row in the first head, or for values
      // in its first column, and nowhere else.
      Values bias(static_cast<std::size_t>(width), 0.25);
      bias[0] = std::numeric_limits<double>::quiet_NaN();
      const Stored broken(bias, Shape{width});
      weights.parts[part].bias = broken.view;
      Runner runner(*backend);
      const Values x = generator(batch.total_tokens() * hidden);
      const Values out = attend(runner, c, batch, hidden, x, weights.parts);
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < out.size(); ++i) {
        const auto column = static_cast<std::int64_t>(i) % width;
        const bool expected = part == 2 ? column == 0 : column < c.shape.head_dim;
        wrong += std::isnan(out[i]) != expected;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("attention of selected rows is what project_qkv and attention make of them") {
  for (const SelectedCase& c : selected_cases()) {
    CAPTURE(c.shape.heads);
    CAPTURE(c.shape.head_dim);
    CAPTURE(c.hidden);
    for (const Backend* backend : selecting_backends(c.shape)) {
      INFO(std::string(backend->name));
      // In the type of the products, whatever the table is for.
      Backend typed = *backend;
      typed.compute = backend->sensitive;
      Generator generator(typed, 3);
      const QkvWeights weights(generator, c.shape, c.hidden, 1.0);
      const Values x = generator(tokens_of(c) * c.hidden);
      Runner judged(judge());
      Runner runner(*backend, 2);
      const Values want = attend_selected(judged, c, x, weights.parts);
      // Rounded: queries and what they become, which move every score, probabilities, the weighted
      // sums, the output.
      check_close(typed, attend_selected(runner, c, x, weights.parts), want, 200, 3 + 8);
    }
  }
}

TEST_CASE("a NaN in a bias of queries, keys or values reaches selected rows") {
  const SelectedCase c = {{2, 2, 64}, 48, {5, 150}};
  const std::int64_t width = c.shape.heads * c.shape.head_dim;
  for (const Backend* backend : selecting_backends(c.shape)) {
    INFO(std::string(backend->name));
    for (std::size_t part = 0; part < 3; ++part) {
      CAPTURE(part);
      Generator generator(*backend, 8);
      QkvWeights weights(generator, c.shape, c.hidden, 1.0);
      Values bias(static_cast<std::size_t>(width), 0.25);
      bias[0] = std::numeric_limits<double>::quiet_NaN();
      const Stored broken(bias, Shape{width});
      weights.parts[part].bias = broken.view;
      Runner runner(*backend);
      const Values out =
          attend_selected(runner, c, generator(tokens_of(c) * c.hidden), weights.parts);
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < out.size(); ++i) {
        const auto column = static_cast<std::int64_t>(i) % width;
        const bool expected = part == 2 ? column == 0 : column < c.shape.head_dim;
        wrong += std::isnan(out[i]) != expected;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("bits of a selected row do not depend on the batch, the threads or the caller") {
  for (const SelectedCase& c : selected_cases()) {
    if (!c.selected.empty()) continue;
    CAPTURE(c.shape.head_dim);
    const std::int64_t width = c.shape.heads * c.shape.head_dim;
    for (const Backend* backend : selecting_backends(c.shape)) {
      INFO(std::string(backend->name));
      Generator generator(*backend, 5);
      const QkvWeights weights(generator, c.shape, c.hidden, 1.0);
      const Values x = generator(tokens_of(c) * c.hidden);
      Runner runner(*backend);
      const Values together = attend_selected(runner, c, x, weights.parts);
      for (int threads = 2; threads <= 5; ++threads) {
        Runner more(*backend, threads);
        CHECK(attend_selected(more, c, x, weights.parts) == together);
      }
      std::fesetround(FE_UPWARD);
      const Values upward = attend_selected(runner, c, x, weights.parts);
      std::fesetround(FE_TONEAREST);
      const bool same = upward == together;
      CHECK(same);
      std::ptrdiff_t begin = 0;
      for (std::size_t s = 0; s < c.lengths.size(); ++s) {
        const SelectedCase one = {c.shape, c.hidden, {c.lengths[s]}};
        const std::ptrdiff_t end = begin + c.lengths[s] * c.hidden;
        Runner single(*backend);
        const Values alone =
            attend_selected(single, one, {x.begin() + begin, x.begin() + end}, weights.parts);
        const auto at = together.begin() + static_cast<std::ptrdiff_t>(s) * width;
        CHECK(alone == Values(at, at + width));
        begin = end;
      }
    }
  }
}
