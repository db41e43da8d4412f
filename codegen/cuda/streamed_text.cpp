#include "codegen/cuda/streamed_text.h"

namespace kiln::cuda {

// Maxima are in the exponent's unit. A lane's keys and values lie behind one address each, by numbers that instructions have room for: eight keys
// further the order within lines is the same, and a place further along differs in bits that the lane's own do not touch.
const std::string_view kStreamedRun = R"(      constexpr int kWays = $WAYS, kTiles = $KEYS / 8 / kWays;
      const int kiln_way = kiln_thread / 32 / (4 / kWays), kiln_row0 = kiln_thread / 32 % (4 / kWays) * 16, kiln_first_key = kiln_way * kTiles * 8;
      const int kiln_key_lane = $KEY_LANE, kiln_value_lane = $VALUE_LANE;
      float kiln_out[$TILES][4] = {}, kiln_maximum[2] = {-INFINITY, -INFINITY}, kiln_total[2] = {0, 0};
      if (kiln_first_span < kiln_end_span)
        kiln_send(kiln_first_span, kiln_shared);
$QUERIES      for ($INDEX $SPAN = kiln_first_span; $SPAN < kiln_end_span; ++$SPAN) {
        const int kiln_slot = (int)($SPAN - kiln_first_span) % 2;
        const unsigned char *const kiln_stage = kiln_shared + kiln_slot * $STAGE;
        kiln_copy_wait<0>();
        __syncthreads();
        if ($SPAN + 1 < kiln_end_span)
          kiln_send($SPAN + 1, kiln_shared + (1 - kiln_slot) * $STAGE);
$INSIDE        const int kiln_keys = (int)($KEYS_AT);
        float kiln_scores[kTiles][4] = {};
$MULTIPLY$FREE#pragma unroll
        for (int j = 0; j < kTiles; ++j)
#pragma unroll
          for (int h = 0; h < 2; ++h)
            kiln_score($SPAN, kiln_keys, kiln_row0 + kiln_down + h * 8, kiln_first_key + j * 8 + kiln_across * 2, kiln_scores[j][h * 2], kiln_scores[j][h * 2 + 1]);
        if (kiln_keys < $KEYS) {
#pragma unroll
          for (int e = 0; e < kTiles * 4; ++e)
            if (kiln_first_key + e / 4 * 8 + kiln_across * 2 + e % 2 >= kiln_keys)
              kiln_scores[e / 4][e % 4] = -INFINITY;
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float kiln_here = -INFINITY;
#pragma unroll
          for (int j = 0; j < kTiles; ++j)
            kiln_here = fmaxf(kiln_here, fmaxf(kiln_scores[j][h * 2], kiln_scores[j][h * 2 + 1]));
          kiln_here = fmaxf(kiln_here, kiln_lane_xor(kiln_here, 1));
          kiln_here = fmaxf(kiln_here, kiln_lane_xor(kiln_here, 2));
          const float kiln_now = fmaxf(kiln_maximum[h], kiln_here * $FACTOR), kiln_base = kiln_now == -INFINITY ? 0 : kiln_now;
          const float kiln_scale = kiln_exp2(kiln_maximum[h] - kiln_base);
          kiln_maximum[h] = kiln_now;
          float kiln_sum = 0;
#pragma unroll
          for (int j = 0; j < kTiles; ++j)
#pragma unroll
            for (int e = h * 2; e < h * 2 + 2; ++e) {
              kiln_scores[j][e] = kiln_exp2(fmaf(kiln_scores[j][e], $FACTOR, -kiln_base));
              kiln_sum += kiln_scores[j][e];
            }
          kiln_total[h] = fmaf(kiln_total[h], kiln_scale, kiln_sum);
#pragma unroll
          for (int n = 0; n < $TILES; ++n) {
            kiln_out[n][h * 2] *= kiln_scale;
            kiln_out[n][h * 2 + 1] *= kiln_scale;
          }
        }
$WEIGH      }
      // The warps' rows meet where the stages were.
      __syncthreads();
      float *const kiln_rows_out = (float *)kiln_shared, *const kiln_rows_sums = kiln_rows_out + 64 * $OUT_ROW;
      {
        const int kiln_slot = kiln_thread / 32 * 16 + kiln_down;
$KEEP#pragma unroll
        for (int h = 0; h < 2; ++h) {
          kiln_total[h] += kiln_lane_xor(kiln_total[h], 1);
          kiln_total[h] += kiln_lane_xor(kiln_total[h], 2);
          if (kiln_across == 0) {
            kiln_rows_sums[kiln_slot + h * 8] = kiln_maximum[h];
            kiln_rows_sums[64 + kiln_slot + h * 8] = kiln_total[h];
          }
        }
      }
      __syncthreads();
      for (int kiln_chunk = kiln_thread; kiln_chunk < kiln_rows * $PER_ROW; kiln_chunk += 128) {
        const int kiln_row = kiln_chunk / $PER_ROW, kiln_column = kiln_chunk % $PER_ROW * $WIDTH;
        float kiln_greatest = -INFINITY, kiln_sum = 0;
#pragma unroll
        for (int w = 0; w < kWays; ++w)
          kiln_greatest = fmaxf(kiln_greatest, kiln_rows_sums[w * (64 / kWays) + kiln_row]);
        const float kiln_base = kiln_greatest == -INFINITY ? 0 : kiln_greatest;
        kiln_pack<float, $WIDTH> kiln_value{};
#pragma unroll
        for (int w = 0; w < kWays; ++w) {
          const int kiln_slot = w * (64 / kWays) + kiln_row;
          const float kiln_weight = kiln_exp2(kiln_rows_sums[kiln_slot] - kiln_base);
          const auto kiln_other = kiln_load<$WIDTH>(kiln_rows_out + kiln_slot * $OUT_ROW + kiln_column);
          kiln_sum = fmaf(kiln_weight, kiln_rows_sums[64 + kiln_slot], kiln_sum);
#pragma unroll
          for (int e = 0; e < $WIDTH; ++e)
            kiln_value[e] = fmaf(kiln_weight, kiln_other[e], kiln_value[e]);
        }
$LAST        kiln_finish(kiln_row, kiln_column, kiln_sum, kiln_value);
      }
)";

// By whole lines to where keys come later, and on from there.
const std::string_view kStreamedQueryHalves = R"(      unsigned char *const kiln_own = kiln_shared + $QUERY_AT + kiln_thread / 32 * 16 * $KEY_ROW;
#pragma unroll
      for (int e = 0; e < $STEPS; ++e) {
        const int kiln_piece = e * 32 + kiln_lane, kiln_row = kiln_piece / ($STEPS * 2), kiln_at_piece = kiln_piece % ($STEPS * 2);
        kiln_store((uint32_t *)(kiln_own + kiln_swizzle<$KEY_ROW>(kiln_row, kiln_at_piece * 16)), kiln_query_pairs(kiln_row0 + kiln_row, kiln_at_piece * 8));
      }
      __syncwarp();
      const int kiln_query_lane = kiln_swizzle<$KEY_ROW>(kiln_lane % 16, kiln_lane / 16 * 16);
)";
const std::string_view kStreamedHoldQueries = R"(      uint32_t kiln_queries[$STEPS][4];
#pragma unroll
      for (int k = 0; k < $STEPS; ++k)
        kiln_ldmatrix(kiln_queries[k], kiln_own + (kiln_query_lane ^ k * 32 % 128) + k * 32 / 128 * 128);
)";
const std::string_view kStreamedHeldQuery = R"(          const uint32_t (&kiln_rows_here)[4] = kiln_queries[k];
)";
const std::string_view kStreamedFetchQuery = R"(          uint32_t kiln_rows_here[4];
          kiln_ldmatrix(kiln_rows_here, kiln_own + (kiln_query_lane ^ k * 32 % 128) + k * 32 / 128 * 128);
)";
const std::string_view kStreamedMultiplyHalves = R"(#pragma unroll
        for (int k = 0; k < $STEPS; ++k) {
$FETCH#pragma unroll
          for (int j = 0; j < kTiles; j += 2) {
            uint32_t kiln_bs[4];
            kiln_ldmatrix(kiln_bs, kiln_stage + (kiln_key_lane ^ k * 32 % 128) + k * 32 / 128 * 128 + j * 8 * $KEY_ROW);
            kiln_mma_$HALF(kiln_scores[j], kiln_rows_here, kiln_bs[0], kiln_bs[1]);
            kiln_mma_$HALF(kiln_scores[j + 1], kiln_rows_here, kiln_bs[2], kiln_bs[3]);
          }
        }
)";
const std::string_view kStreamedWeighHalves = R"(#pragma unroll
        for (int j = 0; j < kTiles; j += 2) {
          uint32_t kiln_as[4];
#pragma unroll
          for (int e = 0; e < 4; ++e)
            kiln_as[e] = kiln_pair_$HALF(kiln_scores[j + e / 2][e % 2 * 2], kiln_scores[j + e / 2][e % 2 * 2 + 1]);
#pragma unroll
          for (int n = 0; n < $TILES; n += 2) {
            uint32_t kiln_bs[4];
            kiln_ldmatrix_across(kiln_bs, kiln_stage + $VALUES_AT + (kiln_value_lane ^ n * 16 % 128) + n * 16 / 128 * 128 + j * 8 * $VALUE_ROW);
            kiln_mma_$HALF(kiln_out[n], kiln_as, kiln_bs[0], kiln_bs[1]);
            kiln_mma_$HALF(kiln_out[n + 1], kiln_as, kiln_bs[2], kiln_bs[3]);
          }
        }
)";
const std::string_view kStreamedKeepHalves = R"(#pragma unroll
        for (int e = 0; e < $TILES * 2; ++e)
          kiln_store(kiln_rows_out + (kiln_slot + e % 2 * 8) * $OUT_ROW + e / 2 * 8 + kiln_across * 2, kiln_pack<float, 2>{{kiln_out[e / 2][e % 2 * 2], kiln_out[e / 2][e % 2 * 2 + 1]}});
)";

// Queries of f32 lie in shared memory as lanes take them, for with the parts that are made of them they would not fit into registers.
const std::string_view kStreamedQueryFloats = R"(      float *const kiln_queries = (float *)(kiln_shared + $QUERY_AT) + kiln_thread * 4;
#pragma unroll
      for (int k = 0; k < $STEPS; ++k) {
        const auto kiln_upper = kiln_query(kiln_row0 + kiln_down, k * 16 + kiln_across * 4), kiln_lower = kiln_query(kiln_row0 + kiln_down + 8, k * 16 + kiln_across * 4);
#pragma unroll
        for (int i = 0; i < 2; ++i)
          kiln_store(kiln_queries + (k * 2 + i) * 512, kiln_pack<float, 4>{{kiln_upper[i * 2], kiln_lower[i * 2], kiln_upper[i * 2 + 1], kiln_lower[i * 2 + 1]}});
      }
)";
const std::string_view kStreamedMultiplyFloats = R"(#pragma unroll
        for (int kiln_step = 0; kiln_step < $STEPS; ++kiln_step) {
          const auto kiln_even = kiln_load<4>(kiln_queries + kiln_step * 1024), kiln_odd = kiln_load<4>(kiln_queries + kiln_step * 1024 + 512);
#pragma unroll
          for (int j = 0; j < kTiles; ++j) {
            const auto kiln_bs = kiln_load<4>((const float *)(kiln_stage + ($KEY_PLACE) + j * 8 * $KEY_ROW));
            $PRODUCT(kiln_scores[j], kiln_even.v, kiln_bs[0], kiln_bs[1]);
            $PRODUCT(kiln_scores[j], kiln_odd.v, kiln_bs[2], kiln_bs[3]);
          }
        }
)";
const std::string_view kStreamedWeighFloats = R"(#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          const float kiln_as[4] = {kiln_scores[j][0], kiln_scores[j][2], kiln_scores[j][1], kiln_scores[j][3]};
#pragma unroll
          for (int kiln_group = 0; kiln_group < $TILES / 4; ++kiln_group) {
            const float *const kiln_at_values = (const float *)(kiln_stage + $VALUES_AT + kiln_value_lane + kiln_group * 128 + j * 8 * $VALUE_ROW);
            const auto kiln_low = kiln_load<4>(kiln_at_values), kiln_high = kiln_load<4>(kiln_at_values + $VALUE_ROW / 4);
#pragma unroll
            for (int n = 0; n < 4; ++n)
              $PRODUCT(kiln_out[kiln_group * 4 + n], kiln_as, kiln_low[n], kiln_high[n]);
          }
        }
)";
const std::string_view kStreamedKeepFloats = R"(#pragma unroll
        for (int e = 0; e < $TILES; ++e) {
          const int n = e / 4 * 4, i = e % 4;
          kiln_store(kiln_rows_out + (kiln_slot + i / 2 * 8) * $OUT_ROW + n * 8 + kiln_across * 8 + i % 2 * 4,
                     kiln_pack<float, 4>{{kiln_out[n][i], kiln_out[n + 1][i], kiln_out[n + 2][i], kiln_out[n + 3][i]}});
        }
)";

} // namespace kiln::cuda
