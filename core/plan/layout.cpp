#include "core/plan/layout.h"

namespace tenon {

using Copy = LayoutChoice::Copy;

Layout in_memory_order(Layout l, int rank) {
  while (l.shape.rank() < rank) {
    l.shape.insert(0, 1);
    l.strides.insert(0, 0);
  }
  return {l.dtype, in_memory_order(l.shape), in_memory_order(l.strides)};
}

namespace {

// Rewrites an element-wise piece over [B, C, ..] as one over [B, .., C]: what it computes at each place stays
// the same. False, and nothing done, where its values have several shapes.
bool move_channels_last(Piece& piece) {
  const Shape full = piece.nodes[0].outputs[0].shape;
  for (const PieceNode& n : piece.nodes)
    if (n.outputs.size() != 1 || n.outputs[0].shape != full) return false;
  for (PieceNode& n : piece.nodes) n.outputs[0].shape = in_memory_order(full);
  for (Layout& l : piece.inputs) l = in_memory_order(l, full.rank());
  return true;
}

}  // namespace

LayoutChoice choose_layouts(Piece& piece, bool elementwise, const std::vector<bool>& kept, Backend& backend,
                            bool enabled) {
  LayoutChoice choice{.copies = std::vector<Copy>(piece.inputs.size(), Copy::none)};
  const Shape full = piece.output_type(0).shape;
  bool follows = false, any = false;
  for (size_t i = 0; i < piece.inputs.size(); ++i) {
    follows |= kept[i] && piece.inputs[i].shape == full;
    any |= is_channels_last(piece.inputs[i]);
  }
  choice.moved = elementwise && follows && move_channels_last(piece);
  auto mode = ChannelsLast::never;
  if (enabled && !elementwise && piece.nodes.size() == 1) mode = backend.channels_last(piece);
  const auto copy = [&](size_t i, Copy how) {
    Layout& l = piece.inputs[i];
    choice.copies[i] = how;
    l.strides = how == Copy::row_major || choice.moved ? l.shape.strides() : channels_last_strides(l.shape);
  };
  for (size_t i = 0; i < piece.inputs.size() && !choice.moved; ++i) {
    const Layout& l = piece.inputs[i];
    if (mode == ChannelsLast::never && kept[i])
      copy(i, Copy::row_major);
    else if (mode == ChannelsLast::keeps && any && !is_channels_last(l) && has_channels_last(l.shape))
      copy(i, Copy::channels_last);
  }
  const bool last = mode == ChannelsLast::prefers || (mode == ChannelsLast::keeps && any);
  for (size_t k = 0; k < piece.outputs.size(); ++k)
    piece.outputs[k].channels_last = last && has_channels_last(piece.output_type(k).shape);

  const uint32_t wants = backend.wants_contiguous(piece);
  for (size_t i = 0; i < piece.inputs.size() && i < 32; ++i) {
    const bool stays = piece.inputs[i].contiguous() || (last && is_channels_last(piece.inputs[i]));
    if ((wants >> i & 1u) != 0 && !stays) copy(i, choice.moved ? Copy::channels_last : Copy::row_major);
  }
  return choice;
}

}  // namespace tenon
