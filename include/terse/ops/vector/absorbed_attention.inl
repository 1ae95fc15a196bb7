// Attention of a few selected rows that never forms the keys and values of all the others. Included
// once per instruction set, see ops/avx512.h.
//
// With x_j the operand's rows and q the query of one head, whose key and value weights are K and V:
//   q . (K x_j + b) = (K^T q) . x_j + q . b
//   sum_j p_j (V x_j + b) = V (sum_j p_j x_j) + b      since probabilities sum to 1
// Two products with every row become two dot products a head. DeepSeek-AI 2024, arXiv:2405.04434,
// 2.1.2, absorbs matrices like this.
//
// K^T q takes a panel of K as the tile's rows: its 16 columns are then steps of k, and queries of
// several sequences the lanes. A panel of bf16 has two neighbouring k in a word, and so have the
// rows: what multiplies them has a zero in one half of a word, and there are two such products.

template <class Products>
class AbsorbedAttention {
 public:
  using Element = typename Products::Element;
  using Layout = AttentionLayout<Element>;
  static constexpr std::int64_t kHalves = Layout::kPerWord;  // products that make one

  // What Backend::attend_selected says.
  static void run(Context& context, const Batch& batch, const Operand& x, const Linear& qkv,
                  const ProjectSpec& spec, AttentionInputs queries, Operand out) {
    Projection<Products>::run_queries(context, batch, x, qkv, spec, queries);
    const AbsorbedAttention attention(batch, x, qkv, *spec.selection, queries, out);
    context.scratch.reserve(context.threads,
                            static_cast<std::size_t>(attention.end_) * sizeof(float));
    const std::int64_t group =
        std::clamp<std::int64_t>(ceil_div(out.rows, context.threads), 1, kLanes);
    const std::int64_t groups = ceil_div(out.rows, group);
    parallel_dynamic(context.threads, groups, [&](std::int64_t item, int worker) {
      const ComputeScope scope;
      const std::int64_t first = item * group;
      const Rows rows{first, std::min(group, out.rows - first)};
      float* scratch = context.scratch.of<float>(worker);
      attention.clear_absorbed(rows, scratch);
      for (std::int64_t head = 0; head < attention.shape_.heads; ++head) {
        attention.absorb_keys(rows, head, scratch);
      }
      for (std::int64_t i = 0; i < rows.count; ++i) {
        for (std::int64_t head = 0; head < attention.shape_.heads; head += kTileQueries) {
          attention.attend(rows.first + i, i, head, scratch);
        }
      }
      for (std::int64_t head = 0; head < attention.shape_.heads; ++head) {
        attention.multiply_values(rows, head, scratch);
      }
    });
  }

 private:
  // Selected rows that one worker takes together, at most a vector of them.
  struct Rows {
    std::int64_t first;
    std::int64_t count;
  };

  AbsorbedAttention(const Batch& batch, const Operand& x, const Linear& qkv,
                    const RowSelection& selection, const AttentionInputs& queries, Operand out)
      : batch_(batch),
        selection_(selection),
        weight_(*static_cast<const PanelWeight*>(qkv.handle.get())),
        layout_(batch, queries.shape, queries.data),
        shape_(queries.shape),
        rows_(static_cast<const Word*>(x.data)),
        row_step_(Products::stride(x.width)),
        words_(words_of(x.width, Products::kOperandBytes)),
        out_(static_cast<Element*>(out.data)),
        out_step_(Products::stride(out.width) * kHalves),
        head_lanes_(round_up(shape_.heads, kLanes)) {
    const std::int64_t part = words_ * kTileQueries;
    constants_ = 0;
    halves_ = constants_ + kLanes * head_lanes_;
    product_ = halves_ + kHalves * std::max(kKeyBlock, shape_.head_dim) * kTileQueries;
    scores_ = product_ + std::max(kHalves * part, kLanes * shape_.head_dim);
    absorbed_ = scores_ + kKeyBlock * kTileQueries;
    sums_ = absorbed_ + kLanes * head_lanes_ * words_;
    widened_ = sums_ + kLanes * shape_.heads * row_step_;
    end_ = widened_ + std::max(kWidenedWords, round_up(x.width, 2) * kPanelColumns);
  }

  std::int64_t head_panels() const { return shape_.head_dim / kPanelColumns; }
  // Lanes of the heads from `head` on that are attended together.
  std::int64_t lanes_from(std::int64_t head) const {
    return std::min(kTileQueries, head_lanes_ - head);
  }
  // The absorbed queries of row i of a group and of the heads from `head` on, [words][lanes].
  Word* absorbed(std::int64_t i, std::int64_t head, float* scratch) const {
    return reinterpret_cast<Word*>(scratch + absorbed_) + (i * head_lanes_ + head) * words_;
  }
  // q . b of row i of a group and the heads from `head` on.
  float* constants(std::int64_t i, std::int64_t head, float* scratch) const {
    return scratch + constants_ + i * head_lanes_ + head;
  }
  // The weighted sum of rows of row i of a group and one head, as a row of an operand.
  Word* sum_row(std::int64_t i, std::int64_t head, float* scratch) const {
    return reinterpret_cast<Word*>(scratch + sums_) + (i * shape_.heads + head) * row_step_;
  }

  // What multiplies words of operands: x itself, or rounded in one half of a word and in the other.
  static void store_halves(Word* to, std::int64_t half_step, Vector x) {
    if constexpr (kHalves == 1) {
      store_words(to, x);
    } else {
      store_words(to, pair_words(x, zero()));
      store_words(to + half_step, pair_words(zero(), x));
    }
  }
  // Words of an operand from two products, of one from itself.
  Vector operand_words(const float* product, std::int64_t half_step, Vector factor) const {
    if constexpr (kHalves == 1) {
      return load(product) * factor;
    } else {
      return pair_words(load(product) * factor, load(product + half_step) * factor);
    }
  }

  // absorbed = K^T q for one head of all rows of a group, and constants = q . b.
  void absorb_keys(const Rows& rows, std::int64_t head, float* scratch) const {
    const std::int64_t kv_head = head / (shape_.heads / shape_.kv_heads);
    const std::int64_t panel = (shape_.heads + kv_head) * head_panels();
    auto* halves = reinterpret_cast<Word*>(scratch + halves_);
    const Vector constant = load_queries(rows, head, panel, halves);
    float* product = scratch + product_;
    TileArguments arguments;
    arguments.a_step = kPanelColumns;
    arguments.b_step = kLanes;
    arguments.k = kPanelColumns;
    arguments.c_step = kLanes;
    for (std::int64_t i = 0; i < head_panels(); ++i) {
      arguments.a = weight_.panel(panel + i);
      if constexpr (Products::kWidened) {
        auto* widened = reinterpret_cast<Word*>(scratch + widened_);
        Products::widen(arguments.a, weight_.width(), widened);
        arguments.a = widened;
      }
      arguments.prefetch = reinterpret_cast<const std::byte*>(arguments.a);
      arguments.accumulate = i > 0;
      for (std::int64_t half = 0; half < kHalves; ++half) {
        arguments.b = halves + (half * shape_.head_dim + i * kPanelColumns) * kLanes;
        arguments.c = product + half * words_ * kLanes;
        multiply_rows<Products>(arguments, words_, 1);
      }
    }
    // From lanes that are rows to lanes that are heads.
    alignas(64) float by_row[kLanes];
    store(by_row, constant);
    for (std::int64_t i = 0; i < rows.count; ++i) *constants(i, head, scratch) = by_row[i];
    const std::int64_t first_head = head / kTileQueries * kTileQueries;
    const std::int64_t lanes = lanes_from(first_head);
    for (std::int64_t word = 0; word < words_; ++word) {
      alignas(64) Word words[kLanes];
      store_words(words, operand_words(product + word * kLanes, words_ * kLanes, broadcast(1.0f)));
      for (std::int64_t i = 0; i < rows.count; ++i) {
        absorbed(i, first_head, scratch)[word * lanes + head - first_head] = words[i];
      }
    }
  }

  // Lanes past the last head attend too, and nobody reads what they find: to zeros.
  void clear_absorbed(const Rows& rows, float* scratch) const {
    if (head_lanes_ == shape_.heads) return;
    const std::int64_t all = rows.count * head_lanes_;
    std::fill_n(constants(0, 0, scratch), all, 0.0f);
    std::fill_n(absorbed(0, 0, scratch), all * words_, Word{0});
  }

  // halves (kHalves, head_dim, kLanes): the rows' queries of one head, lanes past the last repeat
  // it. Returns their products with the keys' bias, which begins at `panel`.
  Vector load_queries(const Rows& rows, std::int64_t head, std::int64_t panel, Word* halves) const {
    const float* bias = weight_.bias() + panel * kPanelColumns;
    const Element* from[kLanes];
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const std::int64_t row = rows.first + std::min(i, rows.count - 1);
      from[i] = layout_.query(selection_.rows[static_cast<std::size_t>(row)], head);
    }
    Vector constant = zero();
    for (std::int64_t k = 0; k < shape_.head_dim; ++k) {
      alignas(64) float values[kLanes];
      for (std::int64_t i = 0; i < kLanes; ++i) values[i] = to_real<float>(from[i][k]);
      const Vector queries = load(values);
      constant = multiply_add(queries, broadcast(bias[k]), constant);
      store_halves(halves + k * kLanes, shape_.head_dim * kLanes, queries);
    }
    return constant;
  }

  // Sums of the rows that selected row `row`, the i-th of its group, sees, weighted for each of the
  // heads from `first_head` on.
  void attend(std::int64_t row, std::int64_t i, std::int64_t first_head, float* scratch) const {
    const auto above = std::upper_bound(selection_.cu_rows.begin(), selection_.cu_rows.end(), row);
    const KeyRows keys(batch_, above - selection_.cu_rows.begin() - 1);
    const std::int64_t lanes = lanes_from(first_head);
    const std::int64_t vectors = lanes / kLanes;
    auto* halves = reinterpret_cast<Word*>(scratch + halves_);
    float* product = scratch + product_;
    float* scores = scratch + scores_;
    const std::int64_t part = words_ * kTileQueries;
    std::fill_n(product, kHalves * part, 0.0f);
    RunningSoftmax<Products> softmax[2];
    for (std::int64_t key = 0; key < keys.length; key += kKeyBlock) {
      const std::int64_t count = std::min(kKeyBlock, keys.length - key);
      for (std::int64_t at = 0; at < count; ++at) {
        std::copy_n(constants(i, first_head, scratch), lanes, scores + at * kTileQueries);
      }
      TileArguments arguments;
      arguments.a = rows_ + (keys.begin + key) * row_step_;
      arguments.a_step = row_step_;
      arguments.b = absorbed(i, first_head, scratch);
      arguments.b_step = lanes;
      arguments.b_second = kLanes;
      arguments.k = words_;
      arguments.c = scores;
      arguments.c_step = kTileQueries;
      arguments.accumulate = true;
      arguments.prefetch = reinterpret_cast<const std::byte*>(arguments.a);
      multiply_rows<Products>(arguments, count, vectors);
      for (std::int64_t v = 0; v < vectors; ++v) {
        const Vector factor = softmax[v].add(
            scores + v * kLanes, count, [&](std::int64_t at, Vector even, Vector odd) {
              Word* to = halves + at * kTileQueries + v * kLanes;
              store_halves(to, kKeyBlock * kTileQueries, even);
              store_halves(to + kTileQueries, kKeyBlock * kTileQueries, odd);
            });
        if (all_equal(factor, broadcast(1.0f))) continue;
        for (float* sum = product + v * kLanes; sum < product + kHalves * part;
             sum += kTileQueries) {
          store(sum, load(sum) * factor);
        }
      }
      arguments.b_step = kTileQueries;
      arguments.k = count;
      for (std::int64_t half = 0; half < kHalves; ++half) {
        arguments.b = halves + half * kKeyBlock * kTileQueries;
        arguments.c = product + half * part;
        multiply_rows<Products, true>(arguments, words_, vectors);
      }
    }
    for (std::int64_t v = 0; v < vectors; ++v) {
      write_sums(product + v * kLanes, softmax[v].inverse(), i, first_head + v * kLanes, scratch);
    }
  }

  // A vector of heads of what `attend` has summed, divided by the sums of their probabilities.
  void write_sums(const float* product, Vector inverse, std::int64_t i, std::int64_t head,
                  float* scratch) const {
    const std::int64_t heads = std::min<std::int64_t>(kLanes, shape_.heads - head);
    each_group(words_, [&](std::int64_t word, std::int64_t count) {
      Vector values[kLanes];
      for (std::int64_t at = 0; at < kLanes; ++at) {
        values[at] = at < count ? operand_words(product + (word + at) * kTileQueries,
                                                words_ * kTileQueries, inverse)
                                : zero();
      }
      transpose(values);
      for (std::int64_t h = 0; h < heads; ++h) {
        store_words(sum_row(i, head + h, scratch) + word, values[h]);
      }
    });
  }

  // out = V sum + b for one head of all rows of a group.
  void multiply_values(const Rows& rows, std::int64_t head, float* scratch) const {
    const std::int64_t kv_head = head / (shape_.heads / shape_.kv_heads);
    const std::int64_t panel = (shape_.heads + shape_.kv_heads + kv_head) * head_panels();
    float* product = scratch + product_;
    multiply_panels<Products>(sum_row(0, head, scratch), shape_.heads * row_step_, rows.count,
                              weight_, panel, panel + head_panels(), product, shape_.head_dim,
                              reinterpret_cast<Word*>(scratch + widened_));
    const float* bias = weight_.bias() + panel * kPanelColumns;
    for (std::int64_t i = 0; i < rows.count; ++i) {
      Element* to = out_ + (rows.first + i) * out_step_ + head * shape_.head_dim;
      each_group(shape_.head_dim, [&](std::int64_t k, std::int64_t n) {
        store(to + k, load(product + i * shape_.head_dim + k, n) + load(bias + k, n), n);
      });
    }
  }

  const Batch& batch_;
  const RowSelection& selection_;
  const PanelWeight& weight_;
  Layout layout_;
  AttentionShape shape_;
  const Word* rows_;  // of the operand, row_step_ words apart
  std::int64_t row_step_;
  std::int64_t words_;  // of a row
  Element* out_;
  std::int64_t out_step_;
  std::int64_t head_lanes_;
  // Where parts of a worker's scratch memory begin, in floats.
  std::int64_t constants_;  // [row of the group][head]
  std::int64_t halves_;     // [kHalves][head_dim or kKeyBlock][lanes]: queries, then probabilities
  std::int64_t product_;    // [kHalves][words][lanes], or (rows, head_dim)
  std::int64_t scores_;     // [kKeyBlock][kTileQueries]
  std::int64_t absorbed_;   // [row of the group][words][heads]
  std::int64_t sums_;       // [row of the group][head][row_step_]
  std::int64_t widened_;
  std::int64_t end_;
};
