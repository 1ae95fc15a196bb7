// project_qkv: one product whose columns are heads of queries, keys and values, finished head by
// head. Included once per instruction set, see ops/avx512.h.

struct RotaryRows {
  AlignedBuffer values;  // cos (length, half), then sin
  std::int64_t half = 0;
  std::int64_t length = 0;

  const float* cos(std::int64_t position) const { return values.as<float>() + position * half; }
  const float* sin(std::int64_t position) const { return cos(length + position); }
};

template <class Products>
struct Projection {
  using Element = typename Products::Element;
  using Layout = AttentionLayout<Element>;

  const Batch& batch;
  const Linear& qkv;
  const PanelWeight& weight;
  const RotaryRows* rotary;
  float query_scale;
  Layout layout;

  static void run(Context& context, const Batch& batch, const Operand& x, const Linear& qkv,
                  const ProjectSpec& spec, AttentionInputs out) {
    const ComputeScope scope;
    const Projection projection = of(batch, qkv, spec, out);
    const PanelWeight& weight = projection.weight;
    const std::int64_t query_panels = projection.query_panels();
    const std::int64_t group = group_panels(out.shape, weight, projection.rotary);
    ProductRange range{0, weight.panels(), group, nullptr, 0};
    if (spec.selection != nullptr && group < weight.panels() && query_panels % kUnitPanels == 0) {
      // Queries of the selected rows only, keys and values of all.
      projection.multiply(context, x, {0, query_panels, group, spec.selection, 0});
      range.first_panel = query_panels;
    }
    projection.multiply(context, x, range);
  }

  // Queries of the selected rows and nothing else, where a head is whole panels.
  static void run_queries(Context& context, const Batch& batch, const Operand& x, const Linear& qkv,
                          const ProjectSpec& spec, AttentionInputs out) {
    const ComputeScope scope;
    const Projection projection = of(batch, qkv, spec, out);
    const std::int64_t group = group_panels(out.shape, projection.weight, projection.rotary);
    projection.multiply(context, x, {0, projection.query_panels(), group, spec.selection, 0});
  }

 private:
  static Projection of(const Batch& batch, const Linear& qkv, const ProjectSpec& spec,
                       const AttentionInputs& out) {
    const auto* rotary = spec.rotary == nullptr
                             ? nullptr
                             : static_cast<const RotaryRows*>(spec.rotary->handle.get());
    return {batch,
            qkv,
            *static_cast<const PanelWeight*>(qkv.handle.get()),
            rotary,
            static_cast<float>(spec.query_scale),
            Layout(batch, out.shape, out.data)};
  }

  std::int64_t query_panels() const {
    return layout.shape().heads * layout.shape().head_dim / kPanelColumns;
  }

  // The smallest group of whole panels and whole heads, or everything. Where rows are finished
  // behind the products of others, two panels, if nothing needs the other half of a head.
  static std::int64_t group_panels(const AttentionShape& shape, const PanelWeight& weight,
                                   const RotaryRows* rotary) {
    if (shape.head_dim % kPanelColumns != 0) return weight.panels();
    if (Products::kAmx && rotary == nullptr && shape.head_dim % (2 * kPanelColumns) == 0) return 2;
    return round_up(shape.head_dim / kPanelColumns, kUnitPanels);
  }

  void multiply(Context& context, const Operand& x, const ProductRange& range) const {
    each_linear_block<Products>(context, x, qkv, range, [&](const ProductBlock& block) {
      const std::int64_t first = block.first_panel * kPanelColumns;
      const std::int64_t end = std::min(block.last_panel * kPanelColumns, weight.columns());
      const std::int64_t head = first / layout.shape().head_dim;
      const bool one_head = (head + 1) * layout.shape().head_dim >= end;
      const auto row_of = [&](std::int64_t i) {
        return range.selection == nullptr
                   ? block.row + i
                   : range.selection->rows[static_cast<std::size_t>(block.row + i)];
      };
      if (rotary == nullptr && one_head && head < layout.shape().heads + layout.shape().kv_heads) {
        return finish_part(block, row_of, head, first, end - first);
      }
      // Rows rise, so that the sequence is searched for once and then followed.
      std::int64_t sequence = sequence_of(row_of(0));
      for (std::int64_t i = 0; i < block.rows;) {
        const std::int64_t row = row_of(i);
        while (batch.cu_seqlens[static_cast<std::size_t>(sequence + 1)] <= row) ++sequence;
        const KeyRows keys(batch, sequence);
        float* y = block.y + i * block.step;
        if (rotary == nullptr && one_head) {
          i += finish_values(block, i, row, keys, head, first, end - first);
        } else {
          finish_row(row, keys, block, y);
          ++i;
        }
      }
    });
  }

  std::int64_t sequence_of(std::int64_t row) const {
    const auto after = std::upper_bound(batch.cu_seqlens.begin(), batch.cu_seqlens.end(), row);
    return after - batch.cu_seqlens.begin() - 1;
  }

  void finish_row(std::int64_t row, const KeyRows& keys, const ProductBlock& block,
                  float* y) const {
    const AttentionShape& shape = layout.shape();
    const std::int64_t first = block.first_panel * kPanelColumns;
    const std::int64_t end = std::min(block.last_panel * kPanelColumns, weight.columns());
    add_row(y, weight.bias() + first, end - first);
    for (std::int64_t column = first; column < end; column += shape.head_dim) {
      const std::int64_t head = column / shape.head_dim;
      float* x = y + (column - first);
      if (rotary != nullptr && head < shape.heads + shape.kv_heads) {
        const std::int64_t position = batch.positions[static_cast<std::size_t>(row)];
        rotate(x, rotary->cos(position), rotary->sin(position), shape.head_dim);
      }
      if (head < shape.heads) {
        scale_row(x, shape.head_dim, query_scale);
        write_head(x, shape.head_dim, layout.query(row, head));
      } else if (head < shape.heads + shape.kv_heads) {
        write_head(x, shape.head_dim, layout.key(row, head - shape.heads));
      } else {
        write_value(x, 0, shape.head_dim, row - keys.begin, head - shape.heads - shape.kv_heads,
                    keys);
      }
    }
  }

  // Columns [first, first + count) of the product, which are of one head of queries or keys that is
  // not rotated, in one pass.
  template <class RowOf>
  void finish_part(const ProductBlock& block, const RowOf& row_of, std::int64_t head,
                   std::int64_t first, std::int64_t count) const {
    const AttentionShape& shape = layout.shape();
    const float* bias = weight.bias() + first;
    const bool is_query = head < shape.heads;
    const Vector scale = broadcast(is_query ? query_scale : 1.0f);
    Element* to = is_query ? layout.query(0, head) : layout.key(0, head - shape.heads);
    to += first % shape.head_dim;
    for (std::int64_t i = 0; i < block.rows; ++i) {
      const float* y = block.y + i * block.step;
      Element* row = to + row_of(i) * layout.stride();
      each_group(count, [&](std::int64_t k, std::int64_t n) {
        store(row + k, (load(y + k, n) + load(bias + k, n)) * scale, n);
      });
      end_operand_row(row, count);
    }
  }

  // The same of values, from row i of the block on, which is `row` of the batch and of `keys`: that
  // row, or two that share words. Returns how many.
  std::int64_t finish_values(const ProductBlock& block, std::int64_t i, std::int64_t row,
                             const KeyRows& keys, std::int64_t head, std::int64_t first,
                             std::int64_t count) const {
    const AttentionShape& shape = layout.shape();
    const std::int64_t kv_head = head - shape.heads - shape.kv_heads;
    const std::int64_t at = first % shape.head_dim;
    const std::int64_t index = row - keys.begin;
    const std::int64_t slot = keys.value_slot(index);
    const float* bias = weight.bias() + first;
    float* y = block.y + i * block.step;
    const bool even = slot % 2 == 0;
    const bool alone = keys.ends_segment(index);
    if (Layout::kPerWord == 1 || !even || (!alone && i + 1 == block.rows)) {
      add_row(y, bias, count);
      write_value(y, at, count, index, kv_head, keys);
      return 1;
    }
    if constexpr (Layout::kPerWord == 2) {
      auto* words = reinterpret_cast<Word*>(layout.value(slot, kv_head)) + at;
      each_group(count, [&](std::int64_t k, std::int64_t n) {
        const Vector b = load(bias + k, n);
        const Vector second = alone ? zero() : load(y + block.step + k, n) + b;
        store(reinterpret_cast<float*>(words) + k, pair_words(load(y + k, n) + b, second), n);
      });
    }
    return alone ? 1 : 2;
  }

  // Elements of a head; an odd last one is followed by the zero that completes its word.
  void write_head(const float* x, std::int64_t count, Element* to) const {
    each_group(count, [&](std::int64_t i, std::int64_t n) { store(to + i, load(x + i, n), n); });
    end_operand_row(to, count);
  }

  // Elements [at, at + count) of a value.
  void write_value(const float* x, std::int64_t at, std::int64_t count, std::int64_t index,
                   std::int64_t kv_head, const KeyRows& keys) const {
    const std::int64_t slot = keys.value_slot(index);
    Element* to = layout.value(slot, kv_head);
    if constexpr (std::is_same_v<Element, float>) {
      to += at;
      each_group(count, [&](std::int64_t i, std::int64_t n) { store(to + i, load(x + i, n), n); });
    } else {
      to += 2 * at;
      each_group(count, [&](std::int64_t i, std::int64_t n) {
        store_alternate(to + 2 * i, load(x + i, n), n);
      });
      // The slot that completes the last pair of a segment is multiplied by zero: it must not hold
      // a NaN.
      if (slot % 2 != 0 || !keys.ends_segment(index)) return;
      Element* pad = layout.value(slot + 1, kv_head) + 2 * at;
      each_group(count,
                 [&](std::int64_t i, std::int64_t n) { store_alternate(pad + 2 * i, zero(), n); });
    }
  }
};
