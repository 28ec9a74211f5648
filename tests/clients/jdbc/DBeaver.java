import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;

/**
 * What DBeaver asks when it connects, opens the tree down to a table and shows the tabs of that: the statements of its plugin
 * org.jkiss.dbeaver.ext.postgresql (model/PostgreDataSource, PostgreExecutionContext, PostgreDatabase, PostgreDataTypeCache,
 * PostgreSchema, PostgreTableBase, PostgreStructureAssistant; releases 21 to 25), through the driver that it uses. One line for each
 * thing seen.
 */
public class DBeaver {
    private final Connection connection;

    private DBeaver(Connection connection) {
        this.connection = connection;
    }

    /** The values of one column. */
    private List<String> ask(String column, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int n = 0; n < parameters.length; n++) {
                if (parameters[n] instanceof Long) statement.setLong(n + 1, (Long) parameters[n]);
                else statement.setString(n + 1, (String) parameters[n]);
            }
            return Door.column(statement.executeQuery(), column);
        } catch (SQLException error) {
            throw new SQLException(error.getMessage() + " in " + sql, error.getSQLState());
        }
    }

    private void session() throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("SET application_name = 'DBeaver 25.1.5 - Main <sluice>'");
        }
        connection.setClientInfo("ApplicationName", "DBeaver 25.1.5 - Metadata <sluice>");
        System.out.println("user " + ask("session_user", "SELECT current_schema() AS current_schema,session_user AS session_user"));
        System.out.println("path " + ask("search_path", "SHOW search_path"));
        System.out.println("database " + ask("datname", "SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datname=?", "sluice"));
        System.out.println("databases " + ask("datname", "SELECT db.oid,db.* FROM pg_catalog.pg_database db\nWHERE NOT datistemplate AND datallowconn\nORDER BY db.datname"));
        ask("enumlabel", "SELECT * FROM pg_catalog.pg_enum WHERE 1<>1 LIMIT 1");
        ask("reltype", "SELECT reltype FROM pg_catalog.pg_class WHERE 1<>1 LIMIT 1");
        ask("typcategory", "SELECT typcategory FROM pg_catalog.pg_type WHERE 1<>1 LIMIT 1");
        System.out.println("setting " + ask("setting", "select * from pg_catalog.pg_settings where name=?", "standard_conforming_strings"));
        System.out.println("keywords " + connection.getMetaData().getSQLKeywords().contains("vacuum"));
        System.out.println("roles " + ask("rolname", "SELECT a.oid,a.*,pd.description FROM pg_catalog.pg_roles a \nleft join pg_catalog.pg_shdescription pd on a.oid = pd.objoid\nORDER BY a.rolname"));
        System.out.println("extensions " + ask("extname", "SELECT \n e.oid,\n cfg.tbls,\n n.nspname as schema_name,\n e.*\nFROM \n pg_catalog.pg_extension e \n join pg_namespace n on n.oid =e.extnamespace\n left join  (\n         select\n            ARRAY_AGG(ns.nspname || '.' ||  cls.relname) tbls, oid_ext\n          from\n            (\n            select\n                unnest(e1.extconfig) oid , e1.oid oid_ext\n            from\n                pg_catalog.pg_extension e1) c \n                join    pg_class cls on cls.oid = c.oid \n                join pg_namespace ns on ns.oid = cls.relnamespace\n            group by oid_ext        \n         ) cfg on cfg.oid_ext = e.oid\nORDER BY e.oid"));
        System.out.println("methods " + ask("amname", "SELECT am.oid,am.* FROM pg_catalog.pg_am am\nORDER BY am.oid").contains("heap"));
        ask("lanname", "SELECT l.oid,l.* FROM pg_catalog.pg_language l\nORDER BY l.oid");
        System.out.println("encodings " + ask("name", "SELECT c.contid as oid,c.contid,pg_catalog.pg_encoding_to_char(c.contid) as name FROM pg_catalog.generate_series(0,40) as c(contid)").contains("UTF8"));
        ask("loc", "SELECT t.oid,t.*,pg_tablespace_location(t.oid) loc FROM pg_catalog.pg_tablespace t \nORDER BY t.oid");
    }

    private long schema() throws SQLException {
        String schemas = "SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n\nLEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass\n ORDER BY nspname";
        List<String> names = ask("nspname", schemas);
        System.out.println("schemas " + names);
        long schema = Long.parseLong(ask("oid", schemas).get(names.indexOf("public")));
        String types = "SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description\nFROM pg_catalog.pg_type t\nLEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem \nLEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid\nLEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid\nWHERE t.typname IS NOT NULL\nAND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C')";
        System.out.println("types " + ask("typname", types).containsAll(List.of("text", "timestamptz", "float8", "jsonb")));
        System.out.println("types of the schema " + ask("typname", types + "\nAND t.typnamespace=? ", schema));
        return schema;
    }

    private long tables(long schema) throws SQLException {
        String tables = "SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr,  pg_catalog.pg_get_partkeydef(c.oid) as partition_key \nFROM pg_catalog.pg_class c\nLEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass\nWHERE c.relnamespace=? AND c.relkind not in ('i','I','c')";
        List<String> names = ask("relname", tables, schema);
        List<String> kinds = ask("relkind", tables, schema);
        System.out.println("events is " + kinds.get(names.indexOf("events")) + ", logs is " + kinds.get(names.indexOf("logs")));
        System.out.println("sizes " + ask("total_rel_size", "select c.oid,pg_catalog.pg_total_relation_size(c.oid) as total_rel_size,pg_catalog.pg_relation_size(c.oid) as rel_size\nFROM pg_class c\nWHERE c.relnamespace=?", schema).size());
        System.out.println("functions " + ask("proname", "SELECT p.oid as poid,p.*,pg_catalog.pg_get_expr(p.proargdefaults, 0) as arg_defaults,d.description\nFROM pg_catalog.pg_proc p\nLEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=p.oid AND d.objsubid = 0\nWHERE p.pronamespace=?\nORDER BY p.proname", schema).contains("histogram_quantile"));
        System.out.println("found " + ask("relname", "SELECT x.oid,x.relname,x.relnamespace,x.relkind FROM pg_catalog.pg_class x WHERE x.relkind in('r','v','m','f','p') AND x.relname ILIKE ?  AND x.relnamespace IN (?) ORDER BY x.relname LIMIT 100", "%ev%", schema));
        return Long.parseLong(ask("oid", tables, schema).get(names.indexOf("events")));
    }

    private void table(long table) throws SQLException {
        String columns = "SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid\nFROM pg_catalog.pg_attribute a\nINNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid)\nLEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum)\nLEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid)\nLEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid\nWHERE NOT a.attisdropped AND c.oid=? ORDER BY a.attnum";
        System.out.println("columns " + ask("attname", columns, table).subList(0, 4));
        System.out.println("constraints " + ask("conname", "SELECT c.oid,c.*,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description, case when c.contype='c' then \"substring\"(pg_get_constraintdef(c.oid), 7) else null end consrc_copy\nFROM pg_catalog.pg_constraint c\nINNER JOIN pg_catalog.pg_class t ON t.oid=c.conrelid\nLEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid\nLEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass\nWHERE c.conrelid=?\nORDER BY c.oid", table));
        System.out.println("indexes " + ask("relname", "SELECT i.*,i.indkey as keys,c.relname,c.relnamespace,c.relam,c.reltablespace,tc.relname as tabrelname,dsc.description,pg_catalog.pg_get_expr(i.indpred, i.indrelid) as pred_expr,pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as expr,pg_catalog.pg_relation_size(i.indexrelid) as index_rel_size,pg_catalog.pg_stat_get_numscans(i.indexrelid) as index_num_scans\nFROM pg_catalog.pg_index i\nINNER JOIN pg_catalog.pg_class c ON c.oid=i.indexrelid\nINNER JOIN pg_catalog.pg_class tc ON tc.oid=i.indrelid\nLEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid=dsc.objoid\nWHERE i.indrelid=? ORDER BY tabrelname, c.relname", table));
        System.out.println("parents " + ask("relnamespace", "SELECT i.*,c.relnamespace FROM pg_catalog.pg_inherits i,pg_catalog.pg_class c WHERE i.inhrelid=? AND c.oid=i.inhparent ORDER BY i.inhseqno", table));
        System.out.println("triggers " + ask("tgname", "SELECT x.oid,x.*,p.pronamespace as func_schema_id,d.description\nFROM pg_catalog.pg_trigger x\nLEFT OUTER JOIN pg_catalog.pg_proc p ON p.oid=x.tgfoid \nLEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=x.oid AND d.objsubid=0 \nWHERE x.tgrelid=? AND NOT x.tgisinternal", table));
        System.out.println("rights " + ask("privilege_type", "SELECT * FROM information_schema.table_privileges WHERE table_schema=? AND table_name=?", "public", "events"));
        System.out.println("rows " + (ask("body", "SELECT x.* FROM public.events x LIMIT 200").size() >= 2));
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = Door.connect(arguments)) {
            DBeaver opening = new DBeaver(connection);
            opening.session();
            opening.table(opening.tables(opening.schema()));
        }
    }
}
