// Attention without ever holding a row of scores: blocks of keys pass a tile of queries, with a
// running maximum and sum (Dao et al. 2022, arXiv:2205.14135). Included once per instruction set,
// see ops/avx512.h.
//
// Queries are the lanes of S^T = K Q^T and the rows of O += P V: P^T, which a softmax between
// vectors leaves, is read across for that, so that keys and values are taken where they lie,
// nothing is transposed but the queries, and no query's bits depend on its neighbours. Under
// grouped queries the heads that share a key head are lanes of one tile. Scratch memory does not
// grow with the length.

template <class Products>
class AttentionTile {
 public:
  using Element = typename Products::Element;
  using Layout = AttentionLayout<Element>;
  static constexpr std::int64_t kPerWord = Layout::kPerWord;
  static constexpr std::int64_t kQueries = kTileQueries;  // of an item

  using Scope = typename Products::Scope;

  static std::int64_t scratch_floats(std::int64_t stride) {
    return 2 * (round_up(stride, kLanes) + kKeyBlock) * kTileQueries;
  }

  AttentionTile(const Batch& batch, const Layout& layout, const AttentionRule& rule, Scope&,
                float* scratch)
      : batch_(batch),
        layout_(layout),
        rule_(rule),
        head_words_(layout.stride() / kPerWord),
        output_step_(round_up(layout.stride(), kLanes)),
        parts_(rule.causal ? 2 : 1) {
    const std::int64_t part = output_step_ * kTileQueries;
    queries_ = scratch;
    output_ = queries_ + part;
    scores_ = output_ + part;
    pairs_ = reinterpret_cast<Word*>(scores_ + kKeyBlock * kTileQueries);
  }

  // The queries: lane l is row rows[l] of the batch (of `sequence`) and query head heads[l].
  struct Lanes {
    std::int64_t sequence = 0;
    std::int64_t kv_head = 0;
    std::int64_t count = 0;
    std::int64_t rows[kTileQueries];
    std::int64_t heads[kTileQueries];
    std::int64_t out_rows[kTileQueries];
  };

  // Attention of one tile, written to rows of `out`, out_step elements apart.
  void run(const Lanes& lanes, Element* out, std::int64_t out_step) {
    count_ = lanes.count;
    vectors_ = ceil_div(count_, kLanes);
    begun_ = false;
    load_queries(lanes);
    find_seen_range(lanes);
    for (auto& softmax : softmax_) softmax = RunningSoftmax<Products>();
    const std::int32_t prefix = batch_.prefix_of(lanes.sequence);
    std::int64_t position = 0;
    if (prefix >= 0) {
      walk_keys(KeyRows(batch_, prefix), lanes.kv_head, 0);
      position = batch_.length(prefix);
    }
    walk_keys(KeyRows(batch_, lanes.sequence), lanes.kv_head, position);
    if (!begun_) std::fill(output_, scores_, 0.0f);
    write(lanes, out, out_step);
  }

 private:
  // queries_ [head_words][kTileQueries]; lanes past the last repeat it.
  void load_queries(const Lanes& lanes) {
    for (std::int64_t v = 0; v < vectors_; ++v) {
      each_group(head_words_, [&](std::int64_t word, std::int64_t count) {
        Vector values[kLanes];
        // Addresses one at a time: of an array of them g++ makes vectors, and takes those apart.
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          const auto lane = std::min(v * kLanes + i, count_ - 1);
          const Element* query = layout_.query(lanes.rows[lane], lanes.heads[lane]);
          values[i] = load_words(reinterpret_cast<const Word*>(query) + word, count);
        }
        transpose(values);
        for (std::int64_t i = 0; i < count; ++i) {
          store(queries_ + (word + i) * kTileQueries + v * kLanes, values[i]);
        }
      });
    }
  }

  // First and last position that each lane sees, as floats (exact below 2^24).
  void find_seen_range(const Lanes& lanes) {
    const std::int32_t prefix = batch_.prefix_of(lanes.sequence);
    const std::int64_t offset = (prefix < 0 ? 0 : batch_.length(prefix)) -
                                batch_.cu_seqlens[static_cast<std::size_t>(lanes.sequence)];
    constexpr float kFar = 1e9f;
    alignas(64) float first[kTileQueries];
    alignas(64) float last[kTileQueries];
    lowest_first_ = lowest_last_ = kFar;
    highest_first_ = highest_last_ = -kFar;
    for (std::int64_t i = 0; i < kTileQueries; ++i) {
      const auto position = static_cast<float>(lanes.rows[std::min(i, lanes.count - 1)] + offset);
      const float reach = rule_.window > 0 ? static_cast<float>(rule_.window - 1) : kFar;
      first[i] = position - reach;
      last[i] = rule_.causal ? position : position + reach;
      lowest_first_ = std::min(lowest_first_, first[i]);
      highest_first_ = std::max(highest_first_, first[i]);
      lowest_last_ = std::min(lowest_last_, last[i]);
      highest_last_ = std::max(highest_last_, last[i]);
    }
    for (int v = 0; v < 2; ++v) {
      first_seen_[v] = load(first + v * kLanes);
      last_seen_[v] = load(last + v * kLanes);
    }
  }

  void walk_keys(const KeyRows& keys, std::int64_t kv_head, std::int64_t position) {
    walk_segment(keys, 0, keys.opening, kv_head, position);
    walk_segment(keys, keys.opening, keys.length, kv_head, position);
  }

  // Keys [begin, end) of a sequence whose key 0 has the given position.
  void walk_segment(const KeyRows& keys, std::int64_t begin, std::int64_t end, std::int64_t kv_head,
                    std::int64_t position) {
    for (std::int64_t key = begin; key < end; key += kKeyBlock) {
      const auto first = static_cast<float>(position + key);
      if (first > highest_last_) return;
      // A block ends early where nobody looks: keys that are not seen add exact zeros.
      const auto seen = static_cast<std::int64_t>(
          std::min(static_cast<float>(kKeyBlock), highest_last_ - first + 1));
      const std::int64_t count = std::min({kKeyBlock, end - key, seen});
      const auto last = first + static_cast<float>(count - 1);
      if (last < lowest_first_) continue;
      multiply_keys(layout_.key(keys.begin + key, kv_head), count);
      const bool masked = first < highest_first_ || last > lowest_last_;
      for (std::int64_t v = 0; v < vectors_; ++v) add_block(v, count, masked, first);
      multiply_values(layout_.value(keys.value_slot(key), kv_head), count);
      begun_ = true;
    }
  }

  // scores_ (count, kTileQueries) = keys queries^T
  void multiply_keys(const Element* keys, std::int64_t count) {
    TileArguments arguments;
    arguments.a = reinterpret_cast<const Word*>(keys);
    arguments.a_step = head_words_;
    arguments.b = reinterpret_cast<const Word*>(queries_);
    arguments.b_step = kTileQueries;
    arguments.b_second = kLanes;
    arguments.k = head_words_;
    arguments.c = scores_;
    arguments.c_step = kTileQueries;
    arguments.prefetch = reinterpret_cast<const std::byte*>(arguments.a);
    multiply_rows<Products>(arguments, count, vectors_);
  }

  // output_ (queries, output_step_) = or += probabilities values. Columns past the head's are of
  // whatever follows a row of values, and nobody reads them.
  void multiply_values(const Element* values, std::int64_t count) {
    TileArguments arguments;
    arguments.a_step = kTileQueries;
    arguments.b_step = layout_.stride();
    arguments.b_second = kLanes;
    arguments.k = ceil_div(count, kPerWord);
    arguments.c_step = output_step_;
    for (std::int64_t part = 0; part < (kPerWord == 1 ? 1 : parts_); ++part) {
      arguments.a = kPerWord == 1 ? reinterpret_cast<const Word*>(scores_)
                                  : pairs_ + part * kKeyBlock / 2 * kTileQueries;
      arguments.accumulate = begun_ || part > 0;
      for (std::int64_t d = 0; d < output_step_; d += 2 * kLanes) {
        arguments.b = reinterpret_cast<const Word*>(values) + d;
        arguments.c = output_ + d;
        arguments.prefetch = reinterpret_cast<const std::byte*>(arguments.b);
        multiply_rows<Products, true>(arguments, count_,
                                      std::min<std::int64_t>(2, (output_step_ - d) / kLanes));
      }
    }
  }

  // Turns a block of scores into probabilities and brings the output to the new maximum.
  void add_block(std::int64_t v, std::int64_t count, bool masked, float first) {
    float* scores = scores_ + v * kLanes;
    if (rule_.softcap > 0) cap_scores(scores, count);
    if (masked) mask_scores(scores, v, count, first);
    const Vector factor = softmax_[v].add(
        scores, count,
        [&](std::int64_t key, Vector even, Vector odd) { keep(scores, v, key, even, odd); });
    if (!begun_ || all_equal(factor, broadcast(1.0f))) return;
    alignas(64) float factors[kLanes];
    store(factors, factor);
    float* output = output_ + v * kLanes * output_step_;
    for (std::int64_t i = 0; i < std::min<std::int64_t>(kLanes, count_ - v * kLanes); ++i) {
      scale_row(output + i * output_step_, output_step_, factors[i]);
    }
  }

  void cap_scores(float* scores, std::int64_t count) const {
    const Vector cap = broadcast(rule_.softcap);
    const Vector inverse = broadcast(1.0f / rule_.softcap);
    for (std::int64_t key = 0; key < count; ++key) {
      float* row = scores + key * kTileQueries;
      store(row, cap * tanh(load(row) * inverse));
    }
  }

  void mask_scores(float* scores, std::int64_t v, std::int64_t count, float first) const {
    const Vector unseen = broadcast(-std::numeric_limits<float>::infinity());
    for (std::int64_t key = 0; key < count; ++key) {
      float* row = scores + key * kTileQueries;
      const Vector position = broadcast(first + static_cast<float>(key));
      const Vector after = select_less(last_seen_[v], position, unseen, load(row));
      store(row, select_less(position, first_seen_[v], unseen, after));
    }
  }

  // Of two keys: f32 in place, or bf16 pairs.
  void keep(float* scores, std::int64_t v, std::int64_t key, Vector even, Vector odd) {
    if constexpr (kPerWord == 1) {
      store(scores + key * kTileQueries, even);
      store(scores + (key + 1) * kTileQueries, odd);
    } else {
      Word* to = pairs_ + key / 2 * kTileQueries + v * kLanes;
      const Vector words = pair_words(even, odd);
      store_words(to, words);
      if (parts_ == 1) return;
      store_words(to + kKeyBlock / 2 * kTileQueries,
                  pair_words(even - first_of_pair(words), odd - second_of_pair(words)));
    }
  }

  // out[row][head] = output / sum; zeros where nothing was seen. Adding zero turns -0, which a
  // masked block may leave or not, into 0.
  void write(const Lanes& lanes, Element* out, std::int64_t out_step) {
    const std::int64_t head_dim = layout_.shape().head_dim;
    alignas(64) float inverses[kTileQueries];
    for (std::int64_t v = 0; v < vectors_; ++v) store(inverses + v * kLanes, softmax_[v].inverse());
    for (std::int64_t lane = 0; lane < count_; ++lane) {
      const float* from = output_ + lane * output_step_;
      Element* to = out + lanes.out_rows[lane] * out_step + lanes.heads[lane] * head_dim;
      const Vector inverse = broadcast(inverses[lane]);
      each_group(head_dim, [&](std::int64_t d, std::int64_t n) {
        store(to + d, multiply_add(load(from + d), inverse, zero()), n);
      });
    }
    const std::int64_t width = layout_.shape().heads * head_dim;
    for (std::int64_t i = 0; i < lanes.count; ++i) {
      end_operand_row(out + lanes.out_rows[i] * out_step, width);
    }
  }

  const Batch& batch_;
  const Layout& layout_;
  AttentionRule rule_;
  std::int64_t head_words_;
  std::int64_t output_step_;  // floats from one query's output to the next
  // bf16 numbers that a probability is the sum of. One rounds it to 8 bits; of the roundings
  // between two layers it is the one that the reference does not do. Decoders, where attention is 1
  // to 2 % of the work, take two: on their small models this takes a quarter off the largest error.
  std::int64_t parts_;
  std::int64_t count_ = 0;    // queries
  std::int64_t vectors_ = 0;  // of them
  bool begun_ = false;        // whether output_ holds anything
  float* queries_;
  float* output_;
  float* scores_;
  Word* pairs_;  // [parts_][kKeyBlock / 2][kTileQueries]
  RunningSoftmax<Products> softmax_[2];
  Vector first_seen_[2];
  Vector last_seen_[2];
  float lowest_first_ = 0;
  float highest_first_ = 0;
  float lowest_last_ = 0;
  float highest_last_ = 0;
};

// Shares tiles of (sequence, key head, queries) among the workers, whoever is free.
template <class Products, class Tile = AttentionTile<Products>>
struct Attention {
  using Element = typename Products::Element;

  const Batch& batch;
  const RowSelection* selection;
  AttentionShape shape;

  // Queries [begin, end) of the output belong to sequence s.
  std::int64_t query_begin(std::int64_t sequence) const {
    const auto& begins = selection == nullptr ? batch.cu_seqlens : selection->cu_rows;
    return begins[static_cast<std::size_t>(sequence)];
  }
  // Number of the first tile of a sequence for one key head: enough for the tiles of all before it,
  // without a table of sums.
  std::int64_t tile_begin(std::int64_t sequence) const {
    return query_begin(sequence) * group() / Tile::kQueries + sequence;
  }
  std::int64_t group() const { return shape.heads / shape.kv_heads; }

  static void run(Context& context, const Batch& batch, const AttentionInputs& inputs,
                  const AttentionRule& rule, const RowSelection* selection, Operand out) {
    const AttentionLayout<Element> layout(batch, inputs.shape, inputs.data);
    const Attention attention{batch, selection, inputs.shape};
    const std::int64_t out_step = Products::stride(out.width) * AttentionLayout<Element>::kPerWord;
    context.scratch.reserve(
        context.threads,
        static_cast<std::size_t>(Tile::scratch_floats(layout.stride())) * sizeof(float));
    const std::int64_t items = attention.tile_begin(batch.size()) * inputs.shape.kv_heads;
    parallel_dynamic(context.threads, items, [&](std::int64_t item, int worker) {
      typename Products::Scope scope;
      typename Tile::Lanes lanes;
      if (!attention.find(item, lanes)) return;
      Tile tile(batch, layout, rule, scope, context.scratch.of<float>(worker));
      tile.run(lanes, static_cast<Element*>(out.data), out_step);
    });
  }

  // The lanes of an item; false if it is one of the numbers without a tile.
  bool find(std::int64_t item, typename Tile::Lanes& lanes) const {
    std::int64_t low = 0;
    std::int64_t high = batch.size();
    while (high - low > 1) {  // the last sequence that begins at or before the item
      const std::int64_t middle = (low + high) / 2;
      (tile_begin(middle) * shape.kv_heads <= item ? low : high) = middle;
    }
    const std::int64_t tiles = tile_begin(low + 1) - tile_begin(low);
    const std::int64_t within = item - tile_begin(low) * shape.kv_heads;
    const std::int64_t first = within % tiles * Tile::kQueries;
    const std::int64_t all = (query_begin(low + 1) - query_begin(low)) * group();
    if (first >= all) return false;
    lanes.sequence = low;
    lanes.kv_head = within / tiles;
    lanes.count = std::min(Tile::kQueries, all - first);
    const std::int64_t heads = group();
    std::int64_t row = query_begin(low) + first / heads;
    std::int64_t head = first % heads;
    for (std::int64_t i = 0; i < lanes.count; ++i) {
      lanes.out_rows[i] = row;
      lanes.rows[i] = selection == nullptr ? row : selection->rows[static_cast<std::size_t>(row)];
      lanes.heads[i] = lanes.kv_head * heads + head;
      if (++head < heads) continue;
      head = 0;
      ++row;
    }
    return true;
  }
};
