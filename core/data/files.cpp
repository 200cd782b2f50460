#include "core/data/files.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <system_error>
#include <vector>

namespace tenon {
namespace fs = std::filesystem;

namespace {

bool is_file(const fs::path& p) {
  std::error_code ec;
  return fs::exists(p, ec) && !fs::is_directory(p, ec);
}

constexpr size_t kChunk = size_t{1} << 20;

}  // namespace

std::string data_root_from_environment() {
  if (const char* env = std::getenv("TENON_DATA"); env && *env) return env;
  std::error_code ec;
  const fs::path standard = "../shared/data";
  return fs::is_directory(standard, ec) ? standard.string() : "";
}

Result<std::string> find_data(std::string_view name, std::string_view recipe_dir, std::string_view data_root,
                              std::string_view origin) {
  if (name.empty()) return invalid("a data file has an empty name");
  const fs::path file{std::string(name)};
  std::vector<fs::path> places;
  if (file.is_absolute()) {
    places.push_back(file);
  } else {
    places.push_back((fs::path(std::string(recipe_dir)) / file).lexically_normal());
    if (!data_root.empty()) places.push_back((fs::path(std::string(data_root)) / file).lexically_normal());
  }
  for (const fs::path& p : places) {
    if (is_file(p)) return p.string();
    if (const fs::path gz = p.string() + ".gz"; is_file(gz)) return gz.string();
  }
  std::string message = "data file '" + std::string(name) + "' not found; looked for";
  for (size_t i = 0; i < places.size(); ++i) message += (i ? ", " : " ") + places[i].string() + "[.gz]";
  if (!origin.empty()) message += "; the set is published at " + std::string(origin);
  if (!file.is_absolute())
    message += data_root.empty() ? "; set TENON_DATA to the folder of your data sets"
                                 : "; TENON_DATA names that folder";
  return not_found(std::move(message));
}

Result<std::string> read_file(const std::string& path) {
  std::error_code ec;
  if (!fs::exists(path, ec)) return not_found(path + ": no such file");
  if (fs::is_directory(path, ec)) return invalid(path + ": is a folder, a file is needed");
  std::ifstream in(path, std::ios::binary);
  if (!in) return invalid(path + ": can't be opened: " + std::strerror(errno));
  try {
    std::string content;
    if (const auto size = fs::file_size(path, ec); !ec) content.reserve(size);
    std::vector<char> chunk(kChunk);
    while (in.read(chunk.data(), static_cast<std::streamsize>(chunk.size())) || in.gcount() > 0)
      content.append(chunk.data(), static_cast<size_t>(in.gcount()));
    if (in.bad()) return invalid(path + ": reading failed: " + std::strerror(errno));
    if (content.size() >= 2 && content[0] == '\x1f' && content[1] == '\x8b') return gunzip(content, path);
    return content;
  } catch (const std::bad_alloc&) {
    return unsupported(path + ": does not fit into memory");
  }
}

Result<std::string> gunzip(std::string_view compressed, std::string_view path) {
  const std::string where = std::string(path) + ": ";
  z_stream z{};
  if (inflateInit2(&z, 15 + 16) != Z_OK) return internal_error(where + "zlib could not be initialised");
  struct Guard {
    z_stream* z;
    ~Guard() { inflateEnd(z); }
  } guard{&z};
  try {
    std::string out;
    std::vector<unsigned char> chunk(kChunk);
    size_t fed = 0;
    for (;;) {
      if (z.avail_in == 0 && fed < compressed.size()) {
        const size_t n = std::min(compressed.size() - fed, size_t{1} << 30);
        z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(compressed.data() + fed));
        z.avail_in = static_cast<uInt>(n);
        fed += n;
      }
      z.next_out = chunk.data();
      z.avail_out = static_cast<uInt>(chunk.size());
      const int rc = inflate(&z, Z_NO_FLUSH);
      out.append(reinterpret_cast<const char*>(chunk.data()), chunk.size() - z.avail_out);
      if (rc == Z_STREAM_END) {
        // gzip pads with zeros, and files may hold several members one after another.
        size_t at = fed - z.avail_in;
        while (at < compressed.size() && compressed[at] == '\0') ++at;
        if (at == compressed.size()) return out;
        if (inflateReset(&z) != Z_OK) return internal_error(where + "zlib could not be reset");
        fed = at;
        z.avail_in = 0;
      } else if (rc == Z_BUF_ERROR ||
                 (rc == Z_OK && z.avail_in == 0 && fed == compressed.size() && z.avail_out != 0)) {
        return invalid(where + "the gzip data ends too early: the file is truncated, fetch it again");
      } else if (rc != Z_OK) {
        return invalid(where + "the gzip data is corrupt (" +
                       (z.msg ? z.msg : "zlib error " + std::to_string(rc)) + ") after " +
                       std::to_string(out.size()) + " bytes: fetch the file again");
      }
    }
  } catch (const std::bad_alloc&) {
    return unsupported(where + "does not fit into memory when inflated");
  }
}

}  // namespace tenon
