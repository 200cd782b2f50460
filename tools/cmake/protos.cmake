# tenon_protos: the code that protoc generates from core/**/*.proto, included as "core/<folder>/<name>.pb.h".
file(GLOB_RECURSE core_protos CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR} core/*.proto)
foreach(proto ${core_protos})
  string(REGEX REPLACE "\\.proto$" "" stem ${proto})
  set(out ${CMAKE_BINARY_DIR}/generated/${stem}.pb.cc ${CMAKE_BINARY_DIR}/generated/${stem}.pb.h)
  add_custom_command(OUTPUT ${out}
    COMMAND protobuf::protoc --proto_path=${CMAKE_SOURCE_DIR} --cpp_out=${CMAKE_BINARY_DIR}/generated
            ${CMAKE_SOURCE_DIR}/${proto}
    DEPENDS ${proto} VERBATIM)
  list(APPEND proto_sources ${out})
endforeach()
add_library(tenon_protos OBJECT ${proto_sources})
target_include_directories(tenon_protos SYSTEM PUBLIC ${CMAKE_BINARY_DIR}/generated)
target_link_libraries(tenon_protos PUBLIC protobuf::libprotobuf)
