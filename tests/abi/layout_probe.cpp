#include "tests/abi/layout_probe.h"

#include <cctype>
#include <regex>
#include <sstream>
#include <vector>

namespace abi_test {
namespace {

std::string without_comments(const std::string& s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    if (s.compare(i, 2, "/*") == 0) {
      i = s.find("*/", i + 2) + 2;
      out += ' ';
    } else {
      out += s[i++];
    }
  }
  return out;
}

// Pieces of s between `separator`s that are outside of brackets.
std::vector<std::string> split(const std::string& s, char separator) {
  std::vector<std::string> out(1);
  int depth = 0;
  for (char c : s) {
    if (c == '(' || c == '{' || c == '[') ++depth;
    if (c == ')' || c == '}' || c == ']') --depth;
    if (c == separator && depth == 0)
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

// "int32_t (*read)(...)" -> read; "int64_t shape[8]" -> shape; "uint32_t a, b" -> a b.
std::vector<std::string> field_names(const std::string& declaration) {
  std::smatch m;
  if (std::regex_search(declaration, m, std::regex(R"(\(\s*\*\s*(\w+)\s*\)\s*\()"))) return {m[1]};
  std::vector<std::string> names;
  for (const std::string& piece : split(declaration, ','))
    if (std::regex_search(piece, m, std::regex(R"((\w+)\s*(\[\w+\])?\s*$)"))) names.push_back(m[1]);
  return names;
}

}  // namespace

std::string layout_probe(const std::string& header) {
  const std::string text = without_comments(header);
  std::ostringstream c;
  c << "#include <stdio.h>\n#include \"tenon_plugin.h\"\n"
       "#ifdef __cplusplus\n#define ALIGN alignof\n#else\n#define ALIGN _Alignof\n#endif\n"
       "#define STRUCT(t) printf(\"struct %s size %zu align %zu\\n\", #t, sizeof(t), (size_t)ALIGN(t))\n"
       "#define FIELD(t, f) printf(\"  %s.%s at %zu size %zu\\n\", #t, #f, offsetof(t, f), "
       "sizeof(((t*)0)->f))\n"
       "static int wrong = 0;\n"
       "#define COVERS(t, f) do { static t x; x.struct_size = (uint32_t)offsetof(t, f); \\\n"
       "  if (TN_COVERS(&x, f)) wrong = 1; \\\n"
       "  x.struct_size += (uint32_t)sizeof(x.f); if (!TN_COVERS(&x, f)) wrong = 1; } while (0)\n"
       "int main(void) {\n";
  const std::regex opening(R"(struct\s+(\w+)\s*\{)");
  for (auto it = std::sregex_iterator(text.begin(), text.end(), opening); it != std::sregex_iterator();
       ++it) {
    const std::string name = (*it)[1];
    size_t begin = static_cast<size_t>(it->position() + it->length()), end = begin;
    for (int depth = 1; depth > 0; ++end) depth += text[end] == '{' ? 1 : text[end] == '}' ? -1 : 0;
    c << "  STRUCT(" << name << ");\n";
    const auto declarations = split(text.substr(begin, end - 1 - begin), ';');
    const bool sized = declarations.front().find("struct_size") != std::string::npos;
    for (const std::string& d : declarations)
      for (const std::string& f : field_names(d)) {
        c << "  FIELD(" << name << ", " << f << ");\n";
        if (sized && f != "struct_size") c << "  COVERS(" << name << ", " << f << ");\n";
      }
  }
  const std::regex constant(R"(#define\s+(TN_\w+)[ \t]+(\S[^\n]*))");
  for (auto it = std::sregex_iterator(text.begin(), text.end(), constant); it != std::sregex_iterator();
       ++it) {
    const std::string name = (*it)[1];
    if (name == "TN_EXPORT" || name == "TN_STATIC_ASSERT_") continue;  // not values
    if ((*it)[2].str().front() == '"')
      c << "  printf(\"define %s %s\\n\", \"" << name << "\", " << name << ");\n";
    else
      c << "  printf(\"define %s %lld\\n\", \"" << name << "\", (long long)" << name << ");\n";
  }
  c << "  return wrong;\n}\n";
  return c.str();
}

}  // namespace abi_test
