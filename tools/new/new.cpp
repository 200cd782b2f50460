#include "tools/new/new.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <span>
#include <sstream>
#include <string_view>
#include <utility>

#include "core/base/nearest.h"

namespace tenon::scaffold {

// Generated from tools/new/templates and core/abi.
using Texts = std::span<const std::pair<std::string_view, std::string_view>>;
extern const Texts kTemplates, kHeaders;

namespace {

namespace fs = std::filesystem;

std::string_view text_of(const Texts& texts, std::string_view name) {
  const auto it = std::find_if(texts.begin(), texts.end(), [&](const auto& t) { return t.first == name; });
  return it == texts.end() ? std::string_view() : it->second;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at; (at = text.find(from)) != std::string_view::npos; text.remove_prefix(at + from.size())) {
    out += text.substr(0, at);
    out += to;
  }
  return out += text;
}

// "swish_loss" -> "SwishLoss"
std::string class_name(const std::string& name) {
  std::string out;
  bool upper = true;
  for (const char c : name) {
    if (c != '_') out += upper && c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
    upper = c == '_';
  }
  return out;
}

// The C++ header with those that it includes in it. Its names stay inside the library whatever the compiler's flags are:
// two plugins in one process must not share any.
class OneHeader {
 public:
  std::string make() {
    append("tenon_plugin.hpp");
    std::string out = "// Tenon's plugin header for C++17, all of it; tenon_plugin.h beside it is the contract itself. Apache License 2.0.\n#pragma once\n\n";
    for (const std::string& s : system_) out += s + "\n";
    return out + "\n#include \"tenon_plugin.h\"\n\n#pragma GCC visibility push(hidden)\n" + body_ + "\n#pragma GCC visibility pop\n";
  }

 private:
  void append(const std::string& name) {
    if (!seen_.insert(name).second) return;
    std::istringstream lines{std::string(text_of(kHeaders, name))};
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("#include <")) system_.insert(line);
      else if (line.starts_with("#include \"") && line.ends_with(".hpp\"")) append(line.substr(10, line.size() - 11));
      else if (!line.starts_with("#include \"") && line != "#pragma once") body_ += line + "\n";
    }
  }
  std::set<std::string> seen_, system_;
  std::string body_;
};

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

Status check_name(const std::string& name) {
  const auto fits = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  if (!name.empty() && name[0] >= 'a' && name[0] <= 'z' && std::all_of(name.begin(), name.end(), fits)) return Status::ok();
  return invalid("new: '" + name + "' can't be a plugin's name; it must begin with a letter and have lower-case letters, digits and '_' only");
}

}  // namespace

std::vector<std::string> kinds() {
  std::vector<std::string> out;
  for (const auto& [file, unused] : kTemplates) out.emplace_back(file.substr(0, file.rfind('.')));
  return out;
}

Result<NewPlugin> make_plugin(const std::string& kind, const std::string& name, const std::string& folder) {
  const std::string_view source = text_of(kTemplates, kind + ".cpp");
  if (source.empty()) return invalid("new: no kind '" + kind + "'" + did_you_mean(kind, kinds()));
  TN_RETURN_IF_ERROR(check_name(name));
  const std::pair<std::string, std::string> files[] = {
      {name + ".cpp", replaced(replaced(source, "MyPlugin", class_name(name)), "my_plugin", name)},
      {"tenon_plugin.h", std::string(text_of(kHeaders, "tenon_plugin.h"))},
      {"tenon_plugin.hpp", OneHeader().make()}};
  std::error_code ec;
  fs::create_directories(folder, ec);
  if (ec) return bad_state("new: the folder '" + folder + "' can't be made: " + ec.message());
  NewPlugin made;
  std::vector<std::pair<fs::path, const std::string*>> missing;
  for (const auto& [file, text] : files) {
    const fs::path path = fs::path(folder) / file;
    if (!fs::exists(path, ec)) missing.emplace_back(path, &text);
    else if (file.ends_with(".cpp") || content(path) != text)
      return invalid("new: '" + path.string() + "' is there already" + (file.ends_with(".cpp") ? "" : ", and it is another version") + "; nothing was written");
  }
  for (const auto& [path, text] : missing) {
    std::ofstream out(path, std::ios::binary);
    out << *text;
    out.close();
    if (!out) return bad_state("new: '" + path.string() + "' can't be written");
    made.files.push_back(path.string());
  }
  made.build = "c++ -std=c++17 -O2 -shared -fPIC " + name + ".cpp -o " + name + ".so";
  return made;
}

}  // namespace tenon::scaffold
