// The tensors of a model: Checkpoint opens them (one file, or shards with an index, and whatever
// else is added) and Weights is a dotted scope over it, by which a model takes its tensors under
// the names they have in the checkpoint, with shape and type checked.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "terse/checked.h"
#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/file.h"
#include "terse/json.h"
#include "terse/packed_file.h"
#include "terse/parallel.h"
#include "terse/safetensors.h"
#include "terse/tensor.h"
#include "terse/torch_file.h"

namespace terse {

namespace detail {

// "a", "b", "c", "d", "e" and 7 more.
inline std::string name_list(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 5;
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i) {
    text += (i == 0 ? "" : ", ") + terse::quote(names[i], 60);
  }
  if (names.size() > kShown) text += " and " + std::to_string(names.size() - kShown) + " more";
  return text;
}

// Throws Error(missing_tensor) listing up to five of the names, of which there is one at least, and
// their number.
[[noreturn]] inline void fail_missing(const std::string& where,
                                      const std::vector<std::string>& names) {
  fail(ErrorClass::missing_tensor, where, ": ", names.size(),
       names.size() == 1 ? " tensor is missing: " : " tensors are missing: ", name_list(names));
}

// Where shard files of a model folder may lie: in the folder itself, or where the Hugging Face
// cache keeps them (models--x/snapshots/<revision>/ holds links into models--x/blobs/).
class ShardFolder {
 public:
  // Throws Error(io) if the folder cannot be resolved.
  explicit ShardFolder(const std::string& folder) : folder_(folder), real_(resolve(folder)) {}

  // The real path of the file an index calls name. Throws Error: path (the name is not a relative
  // path downwards, or a link leads out of the folder; nothing has been opened then), unsupported
  // (not *.safetensors), io (no such file).
  std::string find(std::string_view name) const {
    check_name(name);
    const std::string real = resolve(folder_ + "/" + std::string(name)).string();
    const std::filesystem::path cache = real_.parent_path();
    const bool inside = is_inside(real, real_);
    const bool in_blobs =
        cache.filename() == "snapshots" && is_inside(real, cache.parent_path() / "blobs");
    check(inside || in_blobs, ErrorClass::path, path_text(folder_), ": shard ", quote(name),
          " links to a place outside the model folder");
    return real;
  }

 private:
  static std::filesystem::path resolve(const std::string& path) {
    std::error_code error;
    auto real = std::filesystem::canonical(path, error);
    if (error) fail_io(path, "open", error.value());
    return real;
  }
  static bool is_inside(std::string_view path, const std::filesystem::path& folder) {
    const std::string prefix = folder.string() + "/";
    return path.starts_with(prefix);
  }
  void check_name(std::string_view name) const {
    constexpr std::size_t kMaxNameBytes = 1024;
    bool ok =
        !name.empty() && name.size() <= kMaxNameBytes && name.find('\0') == std::string_view::npos;
    // Every component must be a plain name: none empty (also refuses absolute paths and URLs), none
    // leading upwards or nowhere.
    for (std::size_t begin = 0; ok && begin <= name.size();) {
      const std::size_t end = std::min(name.find('/', begin), name.size());
      const std::string_view component = name.substr(begin, end - begin);
      ok = !component.empty() && component != "." && component != "..";
      begin = end + 1;
    }
    check(ok, ErrorClass::path, path_text(folder_), ": shard name ", quote(name),
          " in the index, expected a file inside the model folder");
    check(name.ends_with(".safetensors"), ErrorClass::unsupported, path_text(folder_), ": shard ",
          quote(name), ", expected a .safetensors file");
  }

  std::string folder_;
  std::filesystem::path real_;
};

}  // namespace detail

class Weights;

// All tensors of a model by name, with the files they lie in. Files stay open as long as the
// Checkpoint lives; Weights hold it. After the last add_file() it may be shared between threads.
class Checkpoint : public std::enable_shared_from_this<Checkpoint> {
 public:
  // Opens the tensors of a model folder: model.safetensors if there is one, else the shards of
  // model.safetensors.index.json. A path to one of these files (or any .safetensors) does as well.
  // Of an index only weight_map counts, and only the tensors it names: each is taken from the shard
  // it gives. Throws Error:
  //   everything SafeTensors::open throws, naming the shard
  //   io              neither file is there
  //   path            the index leads out of the folder (see detail::ShardFolder)
  //   schema          weight_map is absent or not a map of strings
  //   missing_tensor  a shard does not hold what the index says; up to 5 names and the count
  static std::shared_ptr<Checkpoint> open(const std::string& path,
                                          FileAccess access = FileAccess::automatic) {
    return with_memory_errors([&] {
      std::shared_ptr<Checkpoint> checkpoint(new Checkpoint(path, access));
      const std::string file = tensor_file(path);
      if (file.ends_with(".json")) {
        checkpoint->add_shards(file);
      } else {
        checkpoint->add_file(file, "");
      }
      return checkpoint;
    });
  }

  // The tensors of a packed model: its panels under <module>.panels, all others as they were.
  static std::shared_ptr<Checkpoint> open(const std::shared_ptr<const PackedFile>& packed) {
    return with_memory_errors([&] {
      std::shared_ptr<Checkpoint> checkpoint(new Checkpoint(packed->path(), FileAccess::automatic));
      std::vector<NamedTensor> entries;
      for (const NamedTensor& entry : packed->tensors()->entries()) {
        if (!entry.name.starts_with(kPackedPrefix)) entries.push_back(entry);
      }
      checkpoint->keep(packed, packed->tensors()->file());
      checkpoint->add_entries(entries, packed->path(), "");
      checkpoint->is_packed_ = true;
      return checkpoint;
    });
  }

  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  // Whether linear layers are held as panels.
  bool is_packed() const { return is_packed_; }

  // Adds the tensors of a safetensors or torch.save file (told apart by content), each named
  // "<prefix>.<its name>", or just its name for an empty prefix. Throws Error: what
  // SafeTensors::open or TorchFile::open throw; duplicate (a name that is there already). Nothing
  // is added then.
  void add_file(const std::string& path, std::string_view prefix) {
    with_memory_errors([&] {
      const auto file = MappedFile::open(path, access_);
      if (TorchFile::recognizes(file->bytes())) {
        const auto tensors = TorchFile::open(file);
        keep(tensors, file);
        add_entries(tensors->entries(), path, prefix);
      } else {
        const auto tensors = SafeTensors::open(file, path);
        keep(tensors, file);
        add_entries(tensors->entries(), path, prefix);
      }
    });
  }

  // The scope of all tensors.
  Weights root() const;

  const std::string& path() const { return path_; }
  std::size_t size() const { return slots_.size(); }

  // Names of the tensors that nobody has asked for by Weights::get, sorted.
  std::vector<std::string> unread() const {
    std::vector<std::string> names;
    for (const auto& [name, slot] : slots_) {
      if (!slot.read.load(std::memory_order_relaxed)) names.push_back(name);
    }
    return names;
  }

  // Every tensor in order of its name: f(name, view).
  template <class F>
  void for_each(F&& f) const {
    for (const auto& [name, slot] : slots_) f(name, slot.view);
  }

  // The same of those that somebody has asked for.
  template <class F>
  void for_each_read(F&& f) const {
    for (const auto& [name, slot] : slots_) {
      if (slot.read.load(std::memory_order_relaxed)) f(name, slot.view);
    }
  }

  // Elements and bytes of all tensors of each type.
  struct Usage {
    std::uint64_t tensors = 0;
    std::uint64_t elements = 0;
    std::uint64_t bytes = 0;
  };
  std::map<DType, Usage> usage() const {
    std::map<DType, Usage> by_dtype;
    for (const auto& [name, slot] : slots_) {
      Usage& usage = by_dtype[slot.view.dtype];
      ++usage.tensors;
      usage.elements = add_sizes(usage.elements, slot.view.size(), "number of parameters");
      usage.bytes = add_sizes(usage.bytes, slot.view.size_bytes(), "bytes of tensors");
    }
    return by_dtype;
  }

  // Looks at every value of every floating tensor. Throws Error(nonfinite) naming the first tensor
  // (by name) that holds a NaN or an infinity, and the first such element.
  void check_finite(int threads) const;

  // Says that bytes of a tensor will not be read again: the pages that lie in them alone leave this
  // process's memory. A later read brings them back.
  void release(const void* data, std::size_t size) const {
    const auto* begin = static_cast<const std::byte*>(data);
    for (const auto& file : files_) {
      const std::span<const std::byte> bytes = file->bytes();
      if (begin < bytes.data() || begin >= bytes.data() + bytes.size()) continue;
      file->advise(FileAdvice::dont_need, static_cast<std::size_t>(begin - bytes.data()), size);
    }
  }

  // Throws Error(io) if a mapped file was changed since it was opened. To be called when all
  // weights have been read.
  void check_unchanged() const {
    for (const auto& file : files_) file->check_unchanged();
  }

 private:
  friend class Weights;

  struct Slot {
    Slot(TensorView tensor, std::shared_ptr<const std::string> path)
        : view(std::move(tensor)), file(std::move(path)) {}
    TensorView view;
    std::shared_ptr<const std::string> file;
    mutable std::atomic<bool> read{false};
  };

  Checkpoint(const std::string& path, FileAccess access) : path_(path), access_(access) {}

  void keep(std::shared_ptr<const void> tensors, std::shared_ptr<const MappedFile> file) {
    owners_.push_back(std::move(tensors));
    files_.push_back(std::move(file));
  }

  using Slots = std::map<std::string, Slot, std::less<>>;

  // The file of a model folder that open() reads; any other path is one itself.
  static std::string tensor_file(const std::string& path) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(path, ignored)) return path;
    const std::string file = path + "/model.safetensors";
    const std::string index = file + ".index.json";
    const bool sharded =
        !std::filesystem::exists(file, ignored) && std::filesystem::exists(index, ignored);
    return sharded ? index : file;
  }

  void add_entries(const std::vector<NamedTensor>& entries, const std::string& path,
                   std::string_view prefix) {
    const auto file = std::make_shared<const std::string>(path);
    Slots added;
    for (const NamedTensor& entry : entries) {
      std::string name = prefix.empty() ? entry.name : std::string(prefix) + "." + entry.name;
      check_new(!slots_.contains(name) && added.try_emplace(name, entry.view, file).second, name,
                *file);
    }
    slots_.merge(added);  // cannot fail, so that all are added or none
  }
  static void check_new(bool is_new, const std::string& name, const std::string& file) {
    if (!is_new) {
      fail(ErrorClass::duplicate, path_text(file), ": tensor ", terse::quote(name),
           " is in the model already");
    }
  }

  void add_shards(const std::string& index_path);

  std::string path_;
  FileAccess access_;
  bool is_packed_ = false;
  Slots slots_;
  std::vector<std::shared_ptr<const void>> owners_;  // of the data that views point to
  std::vector<std::shared_ptr<const MappedFile>> files_;
};

// The tensors of a Checkpoint whose names start with a prefix: weights.scope("encoder")
// .scope("layer", 3).get("attention.self.query.weight", {hidden_size, hidden_size}). Cheap to copy;
// keeps the Checkpoint alive.
class Weights {
 public:
  // The scope "<prefix of this>.<name>"; name may itself be dotted. Nothing is looked up.
  Weights scope(std::string_view name) const {
    return Weights(checkpoint_, prefix_ + std::string(name) + ".");
  }
  Weights scope(std::string_view name, std::int64_t index) const {
    return scope(std::string(name) + "." + std::to_string(index));
  }

  // What the names of this scope start with: empty, or ending in a dot.
  const std::string& prefix() const { return prefix_; }
  // The same without the dot.
  std::string name() const { return prefix_.substr(0, prefix_.empty() ? 0 : prefix_.size() - 1); }
  const std::shared_ptr<const Checkpoint>& checkpoint() const { return checkpoint_; }

  // Keeps the tensors' files open; when the last copy goes, the tensor is released: its owner has
  // converted it and reads the mapped original no more.
  std::shared_ptr<const void> lease(const TensorView& view) const {
    return {view.data, [checkpoint = checkpoint_, view](const void*) {
              checkpoint->release(view.data, static_cast<std::size_t>(view.size_bytes()));
            }};
  }

  bool has(std::string_view name) const { return find(name) != nullptr; }

  // The tensor called name, of type f64, f32, f16 or bf16 and of the expected shape; it counts as
  // read from now on. Throws Error: missing_tensor, dtype, shape_mismatch, each with the full name,
  // the file, what was expected and what was found.
  TensorView get(std::string_view name, const Shape& expected) const {
    const TensorView view = get_shaped(name, expected);
    if (!is_floating(view.dtype)) {
      fail(ErrorClass::dtype, where(name), ": type ", dtype_name(view.dtype),
           ", expected f64, f32, f16 or bf16");
    }
    return view;
  }

  // The same of exactly this type.
  TensorView get(std::string_view name, const Shape& expected, DType dtype) const {
    const TensorView view = get_shaped(name, expected);
    if (view.dtype != dtype) {
      fail(ErrorClass::dtype, where(name), ": type ", dtype_name(view.dtype), ", expected ",
           dtype_name(dtype));
    }
    return view;
  }

  // The tensor called name, of whatever shape and type. Throws Error(missing_tensor).
  TensorView get_any(std::string_view name) const {
    const Checkpoint::Slot* slot = find(name);
    if (slot == nullptr) {
      detail::fail_missing(path_text(checkpoint_->path()), {prefix_ + std::string(name)});
    }
    slot->read.store(true, std::memory_order_relaxed);
    return slot->view;
  }

  // Throws Error(missing_tensor) unless all these names are there: up to 5 that are not, and how
  // many. For a whole layer, so that the message shows that the group is missing.
  void require(const std::vector<std::string>& names) const {
    std::vector<std::string> missing;
    for (const std::string& name : names) {
      if (!has(name)) missing.push_back(prefix_ + name);
    }
    if (!missing.empty()) detail::fail_missing(path_text(checkpoint_->path()), missing);
  }

 private:
  friend class Checkpoint;

  Weights(std::shared_ptr<const Checkpoint> checkpoint, std::string prefix)
      : checkpoint_(std::move(checkpoint)), prefix_(std::move(prefix)) {}

  TensorView get_shaped(std::string_view name, const Shape& expected) const {
    const TensorView view = get_any(name);
    if (view.shape != expected) {
      fail(ErrorClass::shape_mismatch, where(name), ": shape ", shape_text(view.shape),
           ", expected ", shape_text(expected));
    }
    return view;
  }
  const Checkpoint::Slot* find(std::string_view name) const {
    const auto found = checkpoint_->slots_.find(prefix_ + std::string(name));
    return found == checkpoint_->slots_.end() ? nullptr : &found->second;
  }
  std::string where(std::string_view name) const {
    return path_text(*find(name)->file) + ": tensor " + quote(prefix_ + std::string(name), 200);
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::string prefix_;
};

inline Weights Checkpoint::root() const { return Weights(shared_from_this(), ""); }

inline void Checkpoint::add_shards(const std::string& index_path) {
  const JsonLimits limits{.max_bytes = std::size_t{64} << 20, .max_depth = 16};
  const std::string text = read_text_file(index_path, limits.max_bytes);
  const JsonDocument document = JsonDocument::parse(text, limits, path_text(index_path));
  const JsonValue root = document.root().as_object("the index");
  const auto weight_map = root.find("weight_map");
  check(weight_map.found, ErrorClass::schema, document.source(), ": no weight_map");

  const std::size_t slash = index_path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : index_path.substr(0, slash);
  const detail::ShardFolder shard_folder(folder);
  struct Shard {
    std::shared_ptr<const SafeTensors> tensors;
    std::shared_ptr<const std::string> path;
  };
  std::map<std::string_view, Shard> shards;
  std::vector<std::string> missing;
  for (const JsonValue member : weight_map->as_object("weight_map")) {
    const std::string_view shard = member.as_string("a value of weight_map");
    auto& [tensors, path] = shards[shard];
    if (tensors == nullptr) {
      path = std::make_shared<const std::string>(folder + "/" + std::string(shard));
      tensors = SafeTensors::open(MappedFile::open(shard_folder.find(shard), access_), *path);
      keep(tensors, tensors->file());
    }
    const std::string name(member.key());
    const TensorView* view = tensors->find(name);
    if (view == nullptr) {
      missing.push_back(name);
    } else {
      slots_.try_emplace(name, *view, path);  // names of a JSON object are distinct
    }
  }
  if (!missing.empty()) {
    detail::fail_missing(document.source() + ": not in the shard it names", missing);
  }
}

namespace detail {

// The first index in [begin, end) whose element of a floating tensor is NaN or infinite; end if all
// are finite.
inline std::uint64_t first_nonfinite(const TensorView& view, std::uint64_t begin,
                                     std::uint64_t end) {
  return dispatch_floating(view.dtype, [&]<class T>() {
    for (std::uint64_t i = begin; i < end; ++i) {
      const auto value = to_real<double>(load_unaligned<T>(view.data, i));
      // By its bits, so that a program compiled with -ffinite-math-only checks too.
      constexpr std::uint64_t kExponent = std::uint64_t{0x7ff} << 52;
      if ((std::bit_cast<std::uint64_t>(value) & kExponent) == kExponent) return i;
    }
    return end;
  });
}

}  // namespace detail

inline void Checkpoint::check_finite(int threads) const {
  struct Piece {
    const std::string* name;
    const Slot* slot;
    std::uint64_t begin, end;
  };
  // Pieces of a few MB, so that one large embedding is shared between workers; in order of names,
  // so that the exception of the lowest piece is that of the first tensor.
  constexpr std::uint64_t kPieceElements = std::uint64_t{1} << 20;
  std::vector<Piece> pieces;
  for (const auto& [name, slot] : slots_) {
    if (!is_floating(slot.view.dtype)) continue;
    const std::uint64_t size = slot.view.size();
    for (std::uint64_t begin = 0; begin < size; begin += kPieceElements) {
      pieces.push_back({&name, &slot, begin, std::min(begin + kPieceElements, size)});
    }
  }
  parallel_dynamic(
      threads, static_cast<std::int64_t>(pieces.size()), [&](std::int64_t index, int /*worker*/) {
        const Piece& piece = pieces[static_cast<std::size_t>(index)];
        const TensorView& view = piece.slot->view;
        const std::uint64_t bad = detail::first_nonfinite(view, piece.begin, piece.end);
        check(bad == piece.end, ErrorClass::nonfinite, path_text(*piece.slot->file), ": tensor ",
              quote(*piece.name, 200), " has a NaN or infinity at element ", bad);
      });
}

}  // namespace terse
