// The ops and the table of one instruction set. Included once per instruction set, see
// ops/avx512.h. Definitions: ops/reference.h.

template <class Products>
struct Ops {
  using Element = typename Products::Element;
  using Int8 = typename Products::Int8;
  using Layout = AttentionLayout<Element>;
  static constexpr bool kHasInt8 = !std::is_void_v<Int8>;

  struct Table : TensorView {
    Handle owner;
  };
  // A head's weight: (out_features, in_features) and bias, f32.
  struct HeadWeight {
    AlignedBuffer weight;
    AlignedBuffer bias;
  };

  // --- load time ---------------------------------------------------------------------------------

  static Linear prepare_linear(LinearKind kind, std::span<const LinearPart> parts, DType dtype) {
    const ComputeScope scope;
    const std::int64_t width = parts[0].weight.shape[1];
    if (kind == LinearKind::head) {
      auto head = std::make_shared<HeadWeight>();
      head->weight = floats(parts[0].weight);
      if (parts[0].bias.data != nullptr) head->bias = floats(parts[0].bias);
      return {kind, DType::f32, width, parts[0].weight.shape[0], head};
    }
    const std::size_t element_bytes = dtype == DType::i8 ? 1 : Products::kWeightBytes;
    auto weight = std::make_shared<PanelWeight>(kind, parts, element_bytes);
    return {kind, dtype, width, weight->out_features(), weight};
  }

  static Linear adopt_linear(const PackedLinear& packed) {
    auto weight = std::make_shared<PanelWeight>(packed);
    return {packed.kind, packed.dtype, packed.in_features, weight->out_features(), weight};
  }

  static Handle prepare_vector(const TensorView& vector) {
    const ComputeScope scope;
    return std::make_shared<AlignedBuffer>(floats(vector));
  }

  static terse::Table prepare_table(const TensorView& table, Handle owner) {
    return {table.shape[0], table.shape[1],
            std::make_shared<Table>(Table{table, std::move(owner)})};
  }

  // Angles in double: position * frequency rounded to f32 would be off by 1e-3 at position 8,000.
  static RotaryTable prepare_rotary(double theta, std::int64_t head_dim, std::int64_t length) {
    const ComputeScope scope;
    auto rotary = std::make_shared<RotaryRows>();
    rotary->half = head_dim / 2;
    rotary->length = length;
    rotary->values = AlignedBuffer(static_cast<std::size_t>(length * head_dim) * sizeof(float));
    for (std::int64_t k = 0; k < rotary->half; ++k) {
      const double frequency =
          std::pow(theta, -2.0 * static_cast<double>(k) / static_cast<double>(head_dim));
      for (std::int64_t position = 0; position < length; ++position) {
        const double angle = static_cast<double>(position) * frequency;
        float* cos = rotary->values.template as<float>() + position * rotary->half + k;
        cos[0] = static_cast<float>(std::cos(angle));
        cos[length * rotary->half] = static_cast<float>(std::sin(angle));
      }
    }
    return {length, head_dim, rotary};
  }

  // --- memory ------------------------------------------------------------------------------------

  static std::size_t residual_bytes(std::int64_t rows, std::int64_t width) {
    return static_cast<std::size_t>(rows * width) * sizeof(float);
  }
  static std::size_t operand_bytes(std::int64_t rows, std::int64_t width, DType dtype) {
    std::int64_t stride = Products::stride(width);
    if constexpr (kHasInt8) {
      if (dtype == DType::i8) stride = Int8::stride(width);
    }
    return static_cast<std::size_t>(rows * stride) * sizeof(Word);
  }
  static std::size_t attention_bytes(const Batch& batch, const AttentionShape& shape) {
    return Layout(batch, shape, nullptr).bytes();
  }

  // --- ops ---------------------------------------------------------------------------------------

  static void embed(Context& context, const Batch& batch, const EmbedSpec& spec, Residual x,
                    const Norm* next_norm, Operand* out) {
    const ComputeScope scope;
    const auto scale = static_cast<float>(spec.scale);
    each_row(context, x.rows, x.width, [&](std::int64_t row, float* gathered) {
      float* y = residual_row(x, row);
      const auto token = static_cast<std::size_t>(row);
      std::fill(y, y + x.width, 0.0f);
      add_table_row(spec.word, batch.token_ids[token], gathered, y);
      add_table_row(spec.type, batch.type_ids.empty() ? 0 : batch.type_ids[token], gathered, y);
      add_table_row(spec.position, batch.positions[token], gathered, y);
      if (scale != 1.0f) scale_row(y, x.width, scale);
      norm_row(spec.norm, y, x.width);
      if (out != nullptr) write_operand(next_norm, y, *out, row, gathered);
    });
  }

  static void norm(Context& context, const Residual& x, const Norm* norm, Operand out) {
    each_row(context, x.rows, x.width, [&](std::int64_t row, float* normed) {
      write_operand(norm, residual_row(x, row), out, row, normed);
    });
  }

  static void linear_add(Context& context, const Operand& in, const Linear& linear,
                         const AddSpec& spec, Residual x, Operand* out) {
    const ComputeScope scope;
    const PanelWeight& weight = panel_weight(linear);
    const Vector factor = broadcast(static_cast<float>(spec.factor));
    // Where rows are finished behind the products of others, columns are added as they come; but a
    // norm of the product needs them all.
    const bool by_columns = Products::kAmx && spec.product_norm == nullptr;
    const bool keeps_rows = by_columns && out != nullptr && spec.next_norm != nullptr;
    const ProductRange range{0, weight.panels(), by_columns ? 2 : weight.panels(), nullptr,
                             keeps_rows ? kept_floats(*out) : 0};
    each_linear_block<Products>(context, in, linear, range, [&](const ProductBlock& block) {
      const std::int64_t first = block.first_panel * kPanelColumns;
      const std::int64_t columns =
          std::min((block.last_panel - block.first_panel) * kPanelColumns, x.width - first);
      const float* bias = weight.bias() + first;
      for (std::int64_t i = 0; i < block.rows; ++i) {
        float* y = block.y + i * block.step;
        float* residual = residual_row(x, block.row + i);
        if (spec.product_norm != nullptr) {
          add_row(y, bias, columns);
          norm_row(spec.product_norm, y, columns);
        }
        each_group(columns, [&](std::int64_t k, std::int64_t n) {
          float* sum = residual + first + k;
          Vector product = load(y + k, n);
          if (spec.product_norm == nullptr) product = product + load(bias + k, n);
          store(sum, multiply_add(factor, product, load(sum, n)), n);
        });
        if (first + columns < x.width) continue;
        norm_row(spec.sum_norm, residual, x.width);
        if (out == nullptr) continue;
        float* normed = keeps_rows ? block.kept + i * range.kept_floats : y;
        write_operand(spec.next_norm, residual, *out, block.row + i, normed);
      }
    });
  }

  static void linear_activation(Context& context, const Operand& in, const Linear& linear,
                                Activation activation, Operand out) {
    const PanelWeight& weight = panel_weight(linear);
    const ProductRange pairs{0, weight.panels(), 2, nullptr, kept_floats(out)};
    const bool rounded = std::is_same_v<Element, bf16> || out.dtype == DType::i8;
    each_linear_block<Products>(context, in, linear, pairs, [&](const ProductBlock& block) {
      const std::int64_t first = block.first_panel * kPanelColumns;
      const std::int64_t columns = std::min(2 * kPanelColumns, out.width - first);
      const float* bias = weight.bias() + first;
      for (std::int64_t i = 0; i < block.rows; ++i) {
        const float* y = block.y + i * block.step;
        write_columns(out, block, i, first, columns, [&](std::int64_t k) {
          return activate(activation, rounded, load(y + k) + load(bias + k));
        });
      }
    });
  }

  // Panels alternate: 16 columns of gate, the same 16 of up.
  static void linear_gated(Context& context, const Operand& in, const Linear& gate_up,
                           Activation activation, Operand out) {
    const PanelWeight& weight = panel_weight(gate_up);
    const ProductRange pairs{0, weight.panels(), 2, nullptr, kept_floats(out)};
    each_linear_block<Products>(context, in, gate_up, pairs, [&](const ProductBlock& block) {
      const std::int64_t first = block.first_panel / 2 * kPanelColumns;
      const std::int64_t columns = std::min(kPanelColumns, out.width - first);
      const float* bias = weight.bias() + block.first_panel * kPanelColumns;
      for (std::int64_t i = 0; i < block.rows; ++i) {
        const float* y = block.y + i * block.step;
        write_columns(out, block, i, first, columns, [&](std::int64_t k) {
          const Vector gate = activate(activation, load(y + k) + load(bias + k));
          const Vector up = load(y + kPanelColumns + k) + load(bias + kPanelColumns + k);
          return gate * up;
        });
      }
    });
  }

  static void mean_rows(Context& context, const Residual& x, std::span<const RowSpan> spans,
                        Residual out) {
    each_row(context, out.rows, 0, [&](std::int64_t row, float*) {
      const RowSpan span = spans[static_cast<std::size_t>(row)];
      const Vector length = broadcast(static_cast<float>(span.end - span.begin));
      float* y = residual_row(out, row);
      each_group(x.width, [&](std::int64_t i, std::int64_t n) {
        Vector total = load(residual_row(x, span.begin) + i, n);
        for (std::int64_t member = span.begin + 1; member < span.end; ++member) {
          total = total + load(residual_row(x, member) + i, n);
        }
        store(y + i, total / length, n);
      });
    });
  }

  // Heads are small and sensitive: f32 whatever the products are in.
  static void head(Context& context, const Residual& x, const HeadSpec& spec,
                   std::span<double> out) {
    const std::int64_t columns = head_columns(spec, x.width);
    const std::int64_t dense = spec.dense == nullptr ? 0 : spec.dense->out_features;
    const std::int64_t last = spec.out == nullptr ? 0 : spec.out->out_features;
    each_row(context, x.rows, x.width + dense + last, [&](std::int64_t row, float* y) {
      normed_groups(spec.norm, residual_row(x, row), x.width,
                    [&](std::int64_t i, std::int64_t n, Vector value) { store(y + i, value, n); });
      if (spec.dense != nullptr) y = head_linear(*spec.dense, spec.dense_activation, y);
      if (spec.out != nullptr) y = head_linear(*spec.out, spec.out_activation, y);
      if (spec.softcap > 0) {
        const Vector cap = broadcast(spec.softcap);
        each_group(columns, [&](std::int64_t i, std::int64_t n) {
          store(y + i, cap * tanh(load(y + i, n) / cap), n);
        });
      }
      if (spec.l2_normalize) l2_normalize(y, columns);
      for (std::int64_t i = 0; i < columns; ++i) {
        out[static_cast<std::size_t>(row * columns + i)] = static_cast<double>(y[i]);
      }
    });
  }

  static void clear_residual(Context&, Residual x) {
    std::fill_n(static_cast<float*>(x.data), x.rows * x.width, 0.0f);
  }

  static void read_residual(Context&, const Residual& x, std::span<double> out) {
    const float* data = static_cast<const float*>(x.data);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<double>(data[i]);
  }

  static void read_operand(Context&, const Operand& x, std::span<double> out) {
    for (std::int64_t row = 0; row < x.rows; ++row) {
      if constexpr (kHasInt8) {
        if (x.dtype == DType::i8) {
          read_int8_row<Int8>(int8_row<Int8>(x, row), x.width, out.data() + row * x.width);
          continue;
        }
      }
      const Element* from = operand_row(x, row);
      for (std::int64_t i = 0; i < x.width; ++i) {
        out[static_cast<std::size_t>(row * x.width + i)] = to_real<double>(from[i]);
      }
    }
  }

  // compute: i8, or the type of Products.
  static Backend table(const char* name, Isa isa, DType compute) {
    Backend backend;
    backend.name = name;
    backend.isa = isa;
    backend.compute = compute;
    backend.sensitive = compute != DType::i8             ? compute
                        : std::is_same_v<Element, float> ? DType::f32
                                                         : DType::bf16;
    backend.prepare_linear = prepare_linear;
    backend.adopt_linear = adopt_linear;
    backend.prepare_vector = prepare_vector;
    backend.prepare_table = prepare_table;
    backend.prepare_rotary = prepare_rotary;
    backend.residual_bytes = residual_bytes;
    backend.operand_bytes = operand_bytes;
    backend.attention_bytes = attention_bytes;
    backend.embed = embed;
    backend.norm = norm;
    backend.project_qkv = Projection<Products>::run;
    backend.attention = Attention<Products>::run;
    backend.attend_selected = AbsorbedAttention<Products>::run;
    backend.linear_add = linear_add;
    backend.linear_activation = linear_activation;
    backend.linear_gated = linear_gated;
    backend.mean_rows = mean_rows;
    backend.head = head;
    backend.clear_residual = clear_residual;
    backend.read_residual = read_residual;
    backend.read_operand = read_operand;
    return backend;
  }

 private:
  static AlignedBuffer floats(const TensorView& view) {
    const auto count = static_cast<std::size_t>(view.size());
    AlignedBuffer values(count * sizeof(float));
    convert_to(values.as<float>(), view.data, view.dtype, count);
    return values;
  }

  static const PanelWeight& panel_weight(const Linear& linear) {
    return *static_cast<const PanelWeight*>(linear.handle.get());
  }
  static float* residual_row(const Residual& x, std::int64_t row) {
    return static_cast<float*>(x.data) + row * x.width;
  }
  static Element* operand_row(const Operand& x, std::int64_t row) {
    return static_cast<Element*>(x.data) + row * Products::stride(x.width) * Layout::kPerWord;
  }

  // Row of out = norm(x) in its type; normed has room for the row.
  static void write_operand(const Norm* norm, const float* x, const Operand& out, std::int64_t row,
                            float* normed) {
    if constexpr (kHasInt8) {
      if (out.dtype == DType::i8) {
        if (norm != nullptr) {
          normed_groups(norm, x, out.width,
                        [&](std::int64_t i, std::int64_t n, Vector y) { store(normed + i, y, n); });
          x = normed;
        }
        return quantize_row<Int8>(x, out.width, int8_row<Int8>(out, row));
      }
    }
    write_operand_row(norm, x, out.width, operand_row(out, row));
  }

  // An int8 row is written when its last column is there: until then its columns are kept.
  static std::int64_t kept_floats(const Operand& out) {
    return out.dtype == DType::i8 ? round_up(out.width, kLanes) : 0;
  }

  // Columns [first, first + columns) of row i of a block, kLanes of them at a time: values(k),
  // where lanes past the last column are zeros.
  template <class Values>
  static void write_columns(const Operand& out, const ProductBlock& block, std::int64_t i,
                            std::int64_t first, std::int64_t columns, const Values& values) {
    const bool complete = first + columns == out.width;
    if constexpr (kHasInt8) {
      if (out.dtype == DType::i8) {
        float* kept = block.kept + i * kept_floats(out);
        each_group(columns,
                   [&](std::int64_t k, std::int64_t n) { store(kept + first + k, values(k), n); });
        if (complete) quantize_row<Int8>(kept, out.width, int8_row<Int8>(out, block.row + i));
        return;
      }
    }
    Element* to = operand_row(out, block.row + i);
    each_group(columns,
               [&](std::int64_t k, std::int64_t n) { store(to + first + k, values(k), n); });
    if (complete) end_operand_row(to, out.width);
  }

  // f(row, temporary of `floats` floats) for every row, rows shared among the workers.
  template <class F>
  static void each_row(Context& context, std::int64_t rows, std::int64_t floats, const F& f) {
    context.scratch.reserve(context.threads, static_cast<std::size_t>(floats) * sizeof(float));
    parallel_ranges(context.threads, rows, [&](std::int64_t begin, std::int64_t end, int worker) {
      const ComputeScope scope;
      float* temporary = context.scratch.of<float>(worker);
      for (std::int64_t row = begin; row < end; ++row) f(row, temporary);
    });
  }

  // y += row of the table, which is converted where it lies.
  static void add_table_row(const terse::Table* table, std::int32_t row, float* gathered,
                            float* y) {
    if (table == nullptr) return;
    const auto& view = *static_cast<const Table*>(table->handle.get());
    const auto width = static_cast<std::size_t>(table->width);
    const std::size_t offset = static_cast<std::size_t>(row) * width * dtype_size(view.dtype);
    convert_to(gathered, static_cast<const std::byte*>(view.data) + offset, view.dtype, width);
    add_row(y, gathered, table->width);
  }

  // activation(x W^T + b), written behind x; returns where.
  static float* head_linear(const Linear& linear, Activation activation, float* x) {
    const auto& head = *static_cast<const HeadWeight*>(linear.handle.get());
    const float* bias = head.bias.template as<float>();
    float* y = x + linear.in_features;
    for (std::int64_t column = 0; column < linear.out_features; ++column) {
      const float* weight = head.weight.template as<float>() + column * linear.in_features;
      y[column] = sum_groups(linear.in_features, [&](std::int64_t k, std::int64_t n) {
        return load(x + k, n) * load(weight + k, n);
      });
      if (bias != nullptr) y[column] += bias[column];
    }
    each_group(linear.out_features, [&](std::int64_t i, std::int64_t n) {
      store(y + i, activate(activation, load(y + i, n)), n);
    });
    return y;
  }

  static void l2_normalize(float* x, std::int64_t width) {
    const float squares = sum_groups(
        width, [&](std::int64_t i, std::int64_t n) { return load(x + i, n) * load(x + i, n); });
    const Vector norm = broadcast(std::max(std::sqrt(squares), 1e-12f));
    each_group(width,
               [&](std::int64_t i, std::int64_t n) { store(x + i, load(x + i, n) / norm, n); });
  }
};
